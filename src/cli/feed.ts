// Sends NDJSON to a gateway over HTTP, in the order of the file and at a given speed. The gateway validates it.
import * as Effect from "effect/Effect"
import { CommandFailed, usageError } from "./command-failure.ts"
import {
  type ClientAnswer,
  type ClientTls,
  clientTls,
  credential,
  httpClient,
  isRefusedByTls,
  tlsAdvice
} from "./http-client.ts"
import { linesOf, sizeOf, type InputLine, type InputSize } from "./input-lines.ts"
import type { InvalidEnvironment } from "../system/errors.ts"
import { maskSecrets } from "../text/secrets.ts"
import { rateText } from "../text/rate.ts"
import type { Progress } from "./progress.ts"
import { assertServerUrl } from "./server-url.ts"
import { terminalText } from "./terminal-text.ts"
import { counted } from "../text/counted.ts"

/** What the gateway answered to the events sent so far. */
export interface FeedResult {
  readonly accepted: number
  readonly rejected: number
  /** The first few rejections, as JSON of the gateway, with lines of the file. */
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
  /** Called after each request, with what was read of the input. */
  readonly onProgress?: (result: FeedResult, size: InputSize) => void
  /** How long the gateway may be away, too busy or silent before sending ends. Default 30 seconds. */
  readonly patienceMs?: number
  /** How the gateway is recognized. Default: as the settings say. */
  readonly tls?: ClientTls
}

const linesPerRequest = 4_000
const charactersPerRequest = 2 << 20
const examplesKept = 5
const defaultPatienceMs = 30_000
/** How long one answer may take. */
const answerMs = 60_000
/** HTTP statuses of answers with a result for each event: appended to the log, or rejected for good. */
const answered = new Set([202, 207, 400, 422])

const warn = (text: string): void => void process.stderr.write(`millrace: ${terminalText(maskSecrets(text))}\n`)

/**
 * Sends a file and waits until the log has all of it. Requests that the gateway could not serve are repeated for up to 30 seconds, which event
 * ids make safe; standard error says so. Fails with the number of events that the log has.
 */
export const feed = (file: string, options: FeedOptions): Effect.Effect<FeedResult, CommandFailed> =>
  Effect.gen(function* () {
    yield* assertServerUrl(options.url, "the URL of the gateway", "MILLRACE_URL=http://127.0.0.1:7070")
    const ask = yield* Effect.try({
      try: () => httpClient(options.tls ?? clientTls()),
      catch: (error) => {
        const { message, try: advice } = error as InvalidEnvironment
        return usageError(message, advice)
      }
    })
    return yield* sending(file, { ...options, ask })
  })
/** How requests are sent. */
type Ask = ReturnType<typeof httpClient>
interface Sending extends FeedOptions {
  readonly ask: Ask
}
const sending = (file: string, options: Sending): Effect.Effect<FeedResult, CommandFailed> =>
  Effect.tryPromise({
    try: (signal) => {
      const size = sizeOf(file)
      const lines = linesOf(file, () => warn(`waiting for data from ${nameOf(file)}`), size)
      return send(lines, size, options, signal)
    },
    catch: (cause) =>
      cause instanceof CommandFailed
        ? cause
        : new CommandFailed({
            message: `cannot read ${nameOf(file)}: ${cause instanceof Error ? cause.message : String(cause)}`,
            try: "check the name of the file; it must be NDJSON or gzipped NDJSON"
          })
  })
/** Returns what shows how far the sending of a file is, by `show`: its events, their rate, and the time left of a file whose size is known. */
export const feedProgress = (show: (progress: Progress) => void): NonNullable<FeedOptions["onProgress"]> => {
  const began = performance.now()
  return ({ accepted, rejected }, { read, total }) => {
    const fraction = total === undefined ? undefined : Math.min(1, read / total)
    show({ fraction, text: rateText(accepted + rejected, "event", (performance.now() - began) / 1000, fraction) })
  }
}
/** What messages call the input. */
export const nameOf = (file: string): string => (file === "-" ? "standard input" : file)

const send = async (
  lines: AsyncIterable<InputLine>,
  size: InputSize,
  options: Sending,
  signal: AbortSignal
): Promise<FeedResult> => {
  const { speed } = options
  const pace = speed === "max" ? undefined : { started: performance.now(), perMs: speed / 1000 }
  // with a limited speed a request has the events of 50 ms
  const perRequest = speed === "max" ? linesPerRequest : Math.max(1, Math.min(linesPerRequest, Math.round(speed / 20)))
  let fed: FeedResult = { accepted: 0, rejected: 0, examples: [] }
  let pending: Array<InputLine> = []
  let characters = 0
  const flush = async () => {
    if (pending.length === 0) return
    const due = pace === undefined ? 0 : pace.started + (fed.accepted + fed.rejected) / pace.perMs - performance.now()
    if (due > 0) await sleep(due, signal)
    fed = add(fed, await post(pending, options, signal, fed.accepted))
    pending = []
    characters = 0
    options.onProgress?.(fed, size)
  }
  for await (const line of lines) {
    if (line.text === undefined) {
      fed = add(fed, notUtf8(line))
      continue
    }
    pending.push(line)
    characters += line.text.length
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

const notUtf8 = ({ number }: InputLine): FeedResult => {
  const error = {
    line: number,
    code: "invalid_utf8",
    message: "the line is not valid UTF-8",
    try: "encode it as UTF-8"
  }
  return { accepted: 0, rejected: 1, examples: [JSON.stringify({ status: "rejected", error })] }
}

/** Why a request is sent again; undefined if that cannot help. */
const reasonToRepeat = (answer: ClientAnswer | Error): string | undefined => {
  if (answer instanceof Error) {
    // a host with several addresses has an error without a text
    return answer.message || String((answer as NodeJS.ErrnoException).code)
  }
  return answer.status === 429 || answer.status === 503 ? `it answers ${answer.status}` : undefined
}
/** What to do if only a part of a file was sent. */
export const sendAgain =
  "send the file again: events that are in the log already are not counted twice where a projection deduplicates"

/** Sends one request until it is answered. `before`: how many events the log has of the requests before. */
const post = async (
  lines: ReadonlyArray<InputLine>,
  { ask, patienceMs = defaultPatienceMs, topic, url }: Sending,
  signal: AbortSignal,
  before: number
): Promise<FeedResult> => {
  const target = new URL("/v1/events", url)
  target.searchParams.set("results", "errors")
  if (topic !== undefined) target.searchParams.set("topic", topic)
  const body = lines.map(({ text }) => text).join("\n")
  const until = performance.now() + patienceMs
  for (let attempt = 1; ; attempt++) {
    const answer = await ask(target, {
      method: "POST",
      headers: { "content-type": "application/x-ndjson", ...credential() },
      body,
      signal: AbortSignal.any([signal, AbortSignal.timeout(answerMs)])
    }).catch((error: unknown) => error as Error)
    signal.throwIfAborted()
    const text = answer instanceof Error ? "" : answer.text
    if (!(answer instanceof Error) && answered.has(answer.status) && text.includes('"accepted":'))
      return resultOf(text, lines)
    const sent = `the log has ${counted(before, "event")} of it, up to line ${lines[0]!.number - 1}`
    if (answer instanceof Error && isRefusedByTls(answer))
      throw new CommandFailed({
        message: `the gateway at ${url} and this command do not accept each other: ${answer.message.trim()}; ${sent}`,
        try: tlsAdvice
      })
    const reason = reasonToRepeat(answer)
    if (reason === undefined) {
      const { status } = answer as ClientAnswer
      const message = `the gateway at ${url} answered ${status}: ${text.slice(0, 500)}; ${sent}`
      const isRefused = status === 401 || status === 403
      const cause = isRefused
        ? "set MILLRACE_API_KEY to a key with the scope ingest (millrace keys create NAME --scopes ingest)"
        : "look at the gateway's log"
      throw new CommandFailed({ message, try: `${cause}, then ${sendAgain}` })
    }
    if (performance.now() > until) {
      throw new CommandFailed({
        message: `the gateway at ${url} accepted nothing for ${patienceMs / 1000} s: ${reason}; ${sent}`,
        try: `check that the gateway runs there (millrace start --roles gateway) and is not overloaded, then ${sendAgain}`
      })
    }
    if (attempt === 3) warn(`waiting for the gateway at ${url}: ${reason}`)
    await sleep(Math.min(100 * 2 ** attempt, 2_000), signal)
  }
}

interface Rejection {
  readonly error?: { line?: number }
}
const resultOf = (text: string, lines: ReadonlyArray<InputLine>): FeedResult => {
  const answer = JSON.parse(text) as {
    readonly accepted: number
    readonly rejected: number
    readonly results?: ReadonlyArray<Rejection>
  }
  const errors = (answer.results ?? []).filter(({ error }) => error !== undefined).slice(0, examplesKept)
  for (const { error } of errors) if (error?.line !== undefined) error.line = lines[error.line - 1]!.number
  return {
    accepted: answer.accepted,
    rejected: answer.rejected,
    examples: errors.map((result) => JSON.stringify(result))
  }
}
