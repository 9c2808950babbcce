// @ts-check
/**
 * Requests of Web LLM: what it checks in them, with its names of errors, and what webllm gets of them. What webllm cannot
 * do is refused by name and never passed over.
 *
 * @import { ChatCompletionMessageParam, ChatCompletionRequest, ChatOptions, CompletionCreateParams,
 *   ModelRecord } from "@mlc-ai/web-llm"
 */

/** @param {string} name @param {string} message */
export const failure = (name, message) => Object.assign(new Error(message), { name });

const SAMPLING = ["temperature", "top_p", "repetition_penalty", "frequency_penalty", "presence_penalty"];
const PASSED_ON = [...SAMPLING, "top_k", "min_p", "max_tokens", "logit_bias", "seed", "stop", "ignore_eos"];
const READ_HERE = ["messages", "prompt", "echo", "model", "stream", "stream_options"];

/** What webllm has not: the values that ask for nothing. @type {Record<string, (value: any) => boolean>} */
const ASKS_NOTHING = {
  n: (count) => count === 1,
  logprobs: (wanted) => !wanted,
  top_logprobs: (count) => count === 0,
  tools: (tools) => tools.length === 0,
  tool_choice: (choice) => choice === "none",
  response_format: ({ type = "text" }) => type === "text",
  extra_body: ({ enable_thinking, enable_latency_breakdown, resumable, ...others }) =>
    enable_thinking !== false && !enable_latency_breakdown && !resumable?.enabled && !Object.keys(others).length,
};

/**
 * Throw what is wrong with a request for an answer.
 *
 * @param {ChatCompletionRequest} request
 * @param {string} modelId
 */
export function checkChat(request, modelId) {
  checkFields(request, "ChatCompletionRequest", modelId);
  if (!Array.isArray(request.messages) || !request.messages.length)
    throw failure("MessageOrderError", "messages must be a list with one message at least");
  request.messages.forEach((message, i) => checkMessage(message, i, modelId));
  const { role } = request.messages[request.messages.length - 1];
  if (role !== "user" && role !== "tool")
    throw failure("MessageOrderError", `the last message must be the user's or a tool's, got ${role}`);
}

/**
 * Throw what is wrong with a request to continue a text.
 *
 * @param {CompletionCreateParams} request
 * @param {string} modelId
 */
export function checkCompletion(request, modelId) {
  checkFields(request, "CompletionCreateParams", modelId);
}

/**
 * The options of webllm's `create` in a request.
 *
 * @param {Record<string, any>} request
 */
export function optionsOf(request) {
  const given = PASSED_ON.filter((name) => request[name] != null);
  const options = Object.fromEntries(given.map((name) => [name, request[name]]));
  if (options.ignore_eos) delete options.stop; // ignored with it
  return options;
}

/**
 * What a model's record and the page want of it: options of webllm's `load`, and the sampling where a request has none.
 *
 * @param {ModelRecord} record
 * @param {ChatOptions} [chatOpts]
 * @returns {{options: {context?: number}, sampling: Record<string, any>}}
 */
export function settingsOf(record, chatOpts) {
  const { context_window_size: context, ...others } = { ...record.overrides, ...chatOpts };
  const { sliding_window_size: sliding = -1 } = others;
  if (context !== undefined && context !== -1 && sliding !== -1)
    throw failure("WindowSizeConfigurationError", "context_window_size and sliding_window_size are given: give one");
  if (context === -1 && sliding === -1)
    throw failure("WindowSizeSpecificationError", "context_window_size and sliding_window_size are -1: give one");
  const fields = Object.entries(others).filter(([, value]) => value != null && value !== -1);
  const unknown = fields.map(([name]) => name).filter((name) => !SAMPLING.includes(name));
  refuse(unknown, "ChatOptions");
  return { options: context === undefined ? {} : { context }, sampling: Object.fromEntries(fields) };
}

/**
 * @param {string[]} names
 * @param {string} of
 */
export function refuse(names, of) {
  if (!names.length) return;
  throw failure("UnsupportedFieldsError", `${of}: webllm does not have ${names.join(", ")} yet: leave it out`);
}

/**
 * @param {Record<string, any>} request
 * @param {string} of
 * @param {string} modelId
 */
function checkFields(request, of, modelId) {
  checkNumbers(request);
  checkStream(request);
  checkFormat(request.response_format ?? {});
  if (request.tools?.length) throw failure("UnsupportedModelIdError", `${modelId} cannot call tools; no model can yet`);
  const given = Object.entries(request).filter(([name, value]) => value != null && !PASSED_ON.includes(name));
  const wanted = given.filter(([name, value]) => !READ_HERE.includes(name) && !ASKS_NOTHING[name]?.(value));
  refuse(wanted.map(([name]) => name), of);
}

/** @param {Record<string, any>} request */
function checkNumbers(request) {
  for (const [name, least, most] of /** @type {const} */ ([
    ["frequency_penalty", -2, 2],
    ["presence_penalty", -2, 2],
    ["top_logprobs", 0, 5],
    ["top_p", Number.MIN_VALUE, 1],
  ]))
    checkRange(name, request[name], least, most);
  for (const name of ["repetition_penalty", "max_tokens"])
    if (request[name] != null && !(request[name] > 0))
      throw failure("MinValueError", `${name} must be above 0, got ${request[name]}`);
  const { temperature, seed, logprobs, top_logprobs, logit_bias } = request;
  if (temperature != null && !(temperature >= 0))
    throw failure("NonNegativeError", `temperature must be 0 or more, got ${temperature}`);
  if (seed != null && !Number.isInteger(seed)) throw failure("SeedTypeError", `seed must be a whole number, got ${seed}`);
  if (top_logprobs != null && !logprobs) throw failure("DependencyError", "top_logprobs wants logprobs to be true");
  for (const [token, bias] of Object.entries(logit_bias ?? {})) {
    if (!/^\d+$/.test(token)) throw failure("InvalidNumberStringError", `logit_bias maps token ids, got "${token}"`);
    checkRange(`logit_bias of ${token}`, bias, -100, 100);
  }
}

/** @param {string} name @param {any} value @param {number} least @param {number} most */
function checkRange(name, value, least, most) {
  const from = least === Number.MIN_VALUE ? "above 0" : `from ${least}`;
  if (value != null && !(least <= value && value <= most))
    throw failure("RangeError", `${name} must be ${from} to ${most}, got ${value}`);
}

/** @param {Record<string, any>} request */
function checkStream({ stream, stream_options, n }) {
  if (stream && n > 1) throw failure("StreamingCountError", `a stream has one answer, got n = ${n}`);
  if (!stream && stream_options) throw failure("InvalidStreamOptionsError", "stream_options wants stream to be true");
}

/** @param {Record<string, any>} format */
function checkFormat({ type, schema, grammar, structural_tag }) {
  if (schema != null && type !== "json_object")
    throw failure("InvalidResponseFormatError", `response_format: a schema wants the type json_object, got ${type}`);
  if ((grammar != null) !== (type === "grammar"))
    throw failure("InvalidResponseFormatGrammarError", "response_format: a grammar and the type grammar want each other");
  if ((structural_tag != null) !== (type === "structural_tag"))
    throw failure(
      "InvalidResponseFormatStructuralTagError",
      "response_format: a structural_tag and the type structural_tag want each other",
    );
}

/** @param {ChatCompletionMessageParam} message @param {number} i @param {string} modelId */
function checkMessage({ role, content }, i, modelId) {
  const where = `message ${i} (${role})`;
  if (!["system", "user", "assistant", "tool"].includes(role))
    throw failure("UnsupportedRoleError", `${where}: the role must be system, user, assistant or tool`);
  if (role === "system" && i > 0) throw failure("SystemMessageOrderError", `${where}: a system message comes first`);
  if (role === "user" && typeof content !== "string")
    throw failure("UserMessageContentErrorForNonVLM", `${where}: ${modelId} reads text only, so content must be a string`);
  if (role === "assistant" && content != null && typeof content !== "string")
    throw failure("ContentTypeError", `${where}: content must be a string`);
}
