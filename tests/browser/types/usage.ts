/** What a page in TypeScript writes; `tsc` checks it against the declarations, and that what is wrong here is an error. */

import { LanguageModel, load, type ChatCompletionChunk, type Message, type Model } from "webllm";

export async function ask(file: File): Promise<string> {
  const llm: Model = await load("smollm2-135m-instruct", {
    onProgress: ({ phase, loaded, total }) => console.log(phase.toUpperCase(), loaded / total),
    context: 2048,
    kv: "int8",
    shared: true,
    signal: AbortSignal.timeout(1000),
  });
  const messages: Message[] = [{ role: "user", content: "Hi" }];
  let text = "";
  for await (const chunk of llm.chat.completions.create({ messages, stream: true, temperature: 0 })) {
    const typed: ChatCompletionChunk = chunk;
    text += typed.choices[0].delta.content ?? "";
  }
  const whole = await llm.chat.completions.create({ messages, max_tokens: 8, stop: ["\n"] });
  const ids: number[] = await llm.generate([1, 2], 8);
  const count: number = await llm.countTokens(messages);
  await window.webllm.load(file);
  await llm.close();
  return `${text}${whole.choices[0].message.content}${ids}${count}${whole.usage.extra.decode_tokens_per_s.toFixed(1)}`;
}

export async function element(): Promise<void> {
  const chat = document.createElement("web-llm-chat");
  chat.model = "smollm2-135m-instruct";
  chat.options = { top_p: 0.9 };
  chat.maxTokens = 100;
  chat.maxTokens = null;
  const answer: string = await chat.ask("Hi");
  const last: Message | undefined = chat.messages.at(-1);
  console.log(answer.length, last?.role, chat.llm?.info.adapter.name);
  document.querySelector("web-llm-chat")?.reset();
}

export async function promptApi(): Promise<void> {
  window.webllm.useModel("smollm2-135m-instruct");
  window.webllm.installLanguageModel();
  const session: LanguageModel = await LanguageModel.create({
    initialPrompts: [{ role: "system", content: "Be brief." }],
    monitor: (monitor) => monitor.addEventListener("downloadprogress", (event) => console.log((event as ProgressEvent).loaded)),
  });
  const stream: ReadableStream<string> = session.promptStreaming("Hi");
  const copy: LanguageModel = await session.clone();
  console.log(stream, await copy.measureContextUsage("Hi"), session.contextWindow - session.contextUsage);
}

export async function wrong(llm: Model): Promise<void> {
  // @ts-expect-error: no such number
  await load("smollm2-135m-instruct", { kv: "f64" });
  // @ts-expect-error: messages are wanted
  await llm.chat.completions.create({ stream: true });
  // @ts-expect-error: a stream is not awaited for its choices
  (await llm.chat.completions.create({ messages: [], stream: true })).choices;
  // @ts-expect-error: no such option
  await LanguageModel.create({ temperatur: 1 });
}
