// Our engines are what npm web-llm calls an engine, and its own calls fit them: tests/unit/test_compat.py runs tsc on this.
import type * as theirs from "@mlc-ai/web-llm";
import * as ours from "../../browser_shell/webllm-compat.js";

type Engine = theirs.MLCEngineInterface;

export const engines: Engine[] = [new ours.MLCEngine(), new ours.WebWorkerMLCEngine({}), new ours.ServiceWorkerMLCEngine()];
export const create: typeof theirs.CreateMLCEngine extends (...options: infer Options) => unknown
  ? (...options: Options) => Promise<Engine>
  : never = ours.CreateMLCEngine;
export const config: theirs.AppConfig = ours.prebuiltAppConfig;

export async function answers(engine: ours.MLCEngine): Promise<string> {
  const messages: theirs.ChatCompletionMessageParam[] = [{ role: "user", content: "Hi" }];
  const whole: theirs.ChatCompletion = await engine.chat.completions.create({ messages });
  for await (const chunk of await engine.chat.completions.create({ messages, stream: true }))
    console.log(chunk.choices[0]?.delta.content, chunk.usage?.extra.decode_tokens_per_s);
  const text: theirs.Completion = await engine.completions.create({ prompt: "Once" });
  return whole.choices[0].message.content ?? text.choices[0].text;
}

// @ts-expect-error: without reload it is none
export const wrong: Engine = new ours.MLCEngine() as Omit<ours.MLCEngine, "reload">;
