// Sends NDJSON to a gateway over HTTP, in the order of the file and at a given speed. The gateway validates it.
import { createReadStream } from "node:fs"
import { createInterface } from "node:readline"
import { createGunzip } from "node:zlib"
import * as Effect from "effect/Effect"
import { CommandFailed } from "./command-failure.ts"

/** What the gateway answered to the events sent so far. */
export interface FeedResult {
  readonly accepted: number
  readonly rejected: number
  /** The first few rejections, as JSON of the gateway. */
  readonly examples: ReadonlyArray<string>
}
/** Where to send events, and how fast. */
export interface FeedOptions {
  /** The gateway's URL. */
  readonly url: string
  /** Undefined: each event goes to the topic of its type. */
  readonly topic: string | undefined
  /** Events per second; `max`: as fast as the gateway answers. */
  readonly speed: number | "max"
  /** Called after each request. */
  readonly onProgress?: (result: FeedResult) => void
}

const linesPerRequest = 4_000
const charactersPerRequest = 2 << 20
const examplesKept = 5
const maxAttempts = 20
/** HTTP statuses of answers with a result for each event: appended to the log, or rejected for good. */
const answered = new Set([202, 207, 400, 422])

/** The lines of a file, decompressed if it is gzip; `-` is standard input. Blank lines are left out. */
async function* linesOf(file: string): AsyncGenerator<string> {
  const input = file === "-" ? process.stdin : createReadStream(file)
  const text = file.endsWith(".gz") ? input.pipe(createGunzip()) : input
  // a pipe does not forward an error of its source
  input.once("error", (error: Error) => text.destroy(error))
  for await (const line of createInterface({ input: text, crlfDelay: Infinity })) if (line.trim() !== "") yield line
}

/** Sends a file and waits until the log has all of it. Requests that the gateway could not serve are repeated, which event ids make safe. */
export const feed = (file: string, options: FeedOptions): Effect.Effect<FeedResult, CommandFailed> =>
  Effect.tryPromise({
    try: (signal) => send(linesOf(file), options, signal),
    catch: (cause) =>
      cause instanceof CommandFailed
        ? cause
        : new CommandFailed({
            message: `cannot send ${file}: ${cause instanceof Error ? cause.message : String(cause)}`,
            try: "check the name of the file; it must be NDJSON or gzipped NDJSON"
          })
  })

const send = async (lines: AsyncIterable<string>, options: FeedOptions, signal: AbortSignal): Promise<FeedResult> => {
  const { speed } = options
  const pace = speed === "max" ? undefined : { started: performance.now(), perMs: speed / 1000 }
  // with a limited speed a request has the events of 50 ms
  const perRequest = speed === "max" ? linesPerRequest : Math.max(1, Math.min(linesPerRequest, Math.round(speed / 20)))
  let fed: FeedResult = { accepted: 0, rejected: 0, examples: [] }
  let pending: Array<string> = []
  let characters = 0
  const flush = async () => {
    if (pending.length === 0) return
    const due = pace === undefined ? 0 : pace.started + (fed.accepted + fed.rejected) / pace.perMs - performance.now()
    if (due > 0) await sleep(due, signal)
    fed = add(fed, await post(pending.join("\n"), options, signal))
    pending = []
    characters = 0
    options.onProgress?.(fed)
  }
  for await (const line of lines) {
    pending.push(line)
    characters += line.length
    if (pending.length >= perRequest || characters >= charactersPerRequest) await flush()
  }
  await flush()
  return fed
}
const sleep = (ms: number, signal: AbortSignal) =>
  new Promise<void>((resolve, reject) => {
    const timer = setTimeout(resolve, ms)
    signal.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason as Error)), { once: true })
  })
const add = (a: FeedResult, b: FeedResult): FeedResult => ({
  accepted: a.accepted + b.accepted,
  rejected: a.rejected + b.rejected,
  examples: [...a.examples, ...b.examples].slice(0, examplesKept)
})

const post = async (body: string, { topic, url }: FeedOptions, signal: AbortSignal): Promise<FeedResult> => {
  const target = new URL("/v1/events", url)
  target.searchParams.set("results", "errors")
  if (topic !== undefined) target.searchParams.set("topic", topic)
  for (let attempt = 1; ; attempt++) {
    const response = await fetch(target, {
      method: "POST",
      headers: { "content-type": "application/x-ndjson" },
      body,
      signal
    }).catch((cause: unknown) => {
      if (attempt >= maxAttempts || signal.aborted) throw cause
      return undefined
    })
    const text = await response?.text()
    if (response !== undefined && text !== undefined && answered.has(response.status) && text.includes('"accepted":'))
      return resultOf(text)
    const mayPass = response === undefined || response.status === 429 || response.status === 503
    if (!mayPass || attempt >= maxAttempts) {
      throw new CommandFailed({
        message: `the gateway at ${url} answered ${response?.status}: ${text?.slice(0, 500)}`,
        try: "look at the gateway's log, and send the file again: events that are in the log already are not counted twice"
      })
    }
    await sleep(Math.min(100 * 2 ** attempt, 2_000), signal)
  }
}
const resultOf = (text: string): FeedResult => {
  const answer = JSON.parse(text) as {
    readonly accepted: number
    readonly rejected: number
    readonly results?: ReadonlyArray<{ readonly error?: unknown }>
  }
  const errors = (answer.results ?? []).filter(({ error }) => error !== undefined)
  return {
    accepted: answer.accepted,
    rejected: answer.rejected,
    examples: errors.slice(0, examplesKept).map((result) => JSON.stringify(result))
  }
}
