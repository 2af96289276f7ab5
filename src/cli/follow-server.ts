// Follows a stream of a server over HTTP: connects again when the connection is lost, and goes on behind its last id.
import * as Effect from "effect/Effect"
import type { EndOfStream, StreamMessage } from "../server/connection/connection.ts"
import type { InvalidEnvironment } from "../system/errors.ts"
import { maskSecrets } from "../text/secrets.ts"
import { CommandFailed, usageError } from "./command-failure.ts"
import { clientTls, credential, httpStreams, isRefusedByTls, tlsAdvice } from "./http-client.ts"
import { type ServerEvent, serverEvents } from "./server-events.ts"
import { terminalText } from "./terminal-text.ts"

/** What is followed, and what is done with it. */
export interface FollowedStream {
  /** The server's URL. */
  readonly url: string
  /** The path of the stream. */
  readonly path: string
  /** Its parameters; `from` counts until there is an id. */
  readonly query: Readonly<Record<string, string | undefined>>
  /**
   * Called with messages in their order, and the id of the position behind them; with no messages where the stream has only moved. The next
   * ones come when it has resolved. False ends the following.
   */
  readonly use: (messages: ReadonlyArray<StreamMessage>, id: string) => Promise<boolean>
}

/** How long the server may be silent: it sends something every 15 seconds. */
const silentMs = 45_000
const pauseMs = { first: 250, most: 5_000 } as const
/** Reasons of ends after which a client that connects again goes on, and what follows says why. */
const restarts = new Set(["view_replaced", "changes_expired"])
/** Reasons of ends after which to connect again cannot help. */
const finals = new Set(["position_gone"])

const warn = (text: string): void => void process.stderr.write(`millrace: ${terminalText(maskSecrets(text))}\n`)
const sleep = (ms: number, signal: AbortSignal) =>
  new Promise<void>((resolve, reject) => {
    const stop = () => (clearTimeout(timer), reject(signal.reason as Error))
    const timer = setTimeout(() => (signal.removeEventListener("abort", stop), resolve()), ms)
    signal.addEventListener("abort", stop, { once: true })
  })

/** The error that a refused request stands for. */
const refusalOf = (url: string, status: number, text: string): CommandFailed => {
  let error: { readonly message?: string; readonly try?: string } | undefined
  try {
    error = (JSON.parse(text) as { readonly error?: { readonly message?: string; readonly try?: string } }).error
  } catch {
    // not an answer of Millrace
  }
  const message = error?.message ?? `the server at ${url} answered ${status}: ${text.slice(0, 200)}`
  const isRefused = status === 401 || status === 403
  const advice = isRefused
    ? "set MILLRACE_API_KEY to a key with the scope read (millrace keys create NAME --scopes read)"
    : (error?.try ?? "check the URL: it must be that of a process with the role api")
  return new CommandFailed({ message, try: advice })
}

const isPassing = (status: number): boolean => status === 429 || status === 502 || status === 503

class Following {
  readonly #stream: FollowedStream
  readonly #open: ReturnType<typeof httpStreams>
  #last: string | undefined
  #hasOpened = false
  #failures = 0

  constructor(stream: FollowedStream, open: ReturnType<typeof httpStreams>) {
    this.#stream = stream
    this.#open = open
  }

  /** Follows until `use` resolves to false. Rejects with `CommandFailed`, and with the reason of `signal`. */
  async run(signal: AbortSignal): Promise<void> {
    while (true) {
      const own = new AbortController()
      const both = AbortSignal.any([signal, own.signal])
      try {
        const reason = await this.#once(both, () => own.abort(new Error("nothing came for 45 seconds")))
        if (reason === undefined) return
        await this.#lost(reason, signal)
      } catch (error) {
        signal.throwIfAborted()
        if (error instanceof CommandFailed) throw error
        await this.#lost(this.#reasonOf(error as Error), signal)
      } finally {
        own.abort()
      }
    }
  }

  /** One connection. Resolves to why it ended, or to undefined if no more is wanted. */
  async #once(signal: AbortSignal, abort: () => void): Promise<string | undefined> {
    const { path, query, url, use } = this.#stream
    const target = new URL(path, url)
    for (const [name, value] of Object.entries(query)) if (value !== undefined) target.searchParams.set(name, value)
    let silence = setTimeout(abort, silentMs)
    try {
      const answer = await this.#open(target, {
        headers: {
          ...credential(),
          ...(this.#last !== undefined && { "last-event-id": this.#last })
        },
        signal
      })
      if (answer.body === undefined) {
        if (isPassing(answer.status) || (this.#hasOpened && answer.status >= 500)) return `it answers ${answer.status}`
        throw refusalOf(url, answer.status, answer.text)
      }
      for await (const events of serverEvents(answer.body)) {
        clearTimeout(silence)
        if (!this.#hasOpened || events.length > 0) this.#opened()
        const end = await this.#take(events, use)
        if (end === false) return undefined
        if (end !== undefined) {
          if (restarts.has(end.reason)) return ""
          if (finals.has(end.reason)) throw new CommandFailed({ message: end.message, try: end.try })
          return end.message
        }
        silence = setTimeout(abort, silentMs)
      }
      return "the connection was closed"
    } finally {
      clearTimeout(silence)
    }
  }

  /** Uses events, and keeps their last id. Returns the end of the stream if it is among them, and false if no more is wanted. */
  async #take(
    events: ReadonlyArray<ServerEvent>,
    use: FollowedStream["use"]
  ): Promise<EndOfStream | false | undefined> {
    const messages: Array<StreamMessage> = []
    let end: EndOfStream | undefined
    for (const { data, event, id } of events) {
      if (id !== undefined && data !== undefined) messages.push({ id, event, data })
      else if (event === "end" && data !== undefined) end = JSON.parse(data) as EndOfStream
    }
    const last = events.findLast(({ id }) => id !== undefined)?.id
    if (last === undefined) return end
    if (!(await use(messages, last))) return false
    this.#last = last
    return end
  }

  #opened(): void {
    if (this.#failures >= 3) warn(`the server at ${this.#stream.url} answers again`)
    this.#failures = 0
    this.#hasOpened = true
  }

  #reasonOf(error: Error): string {
    const { url } = this.#stream
    if (isRefusedByTls(error))
      throw new CommandFailed({
        message: `the server at ${url} and this command do not accept each other: ${error.message.trim()}`,
        try: tlsAdvice
      })
    // a host with several addresses has an error without a text
    const reason = error.message || String((error as NodeJS.ErrnoException).code)
    if (this.#hasOpened) return reason
    throw new CommandFailed({
      message: `the server at ${url} cannot be reached: ${reason}`,
      try: "check the URL, and that a process with the role api runs there (millrace start)"
    })
  }

  /** Waits before the next connection, and says so when it takes long. */
  async #lost(reason: string, signal: AbortSignal): Promise<void> {
    if (reason === "") return
    if (++this.#failures === 3) warn(`waiting for the server at ${this.#stream.url}: ${reason}`)
    await sleep(Math.min(pauseMs.first * 2 ** (this.#failures - 1), pauseMs.most), signal)
  }
}

/**
 * Follows a stream until `use` resolves to false: a lost connection is opened again, and the stream goes on behind its last id, so every message
 * is used once. Fails if the first connection cannot be made, and for what cannot pass.
 */
export const followServer = (stream: FollowedStream): Effect.Effect<void, CommandFailed> =>
  Effect.gen(function* () {
    const open = yield* Effect.try({
      try: () => httpStreams(clientTls()),
      catch: (error) => {
        const { message, try: advice } = error as InvalidEnvironment
        return usageError(message, advice)
      }
    })
    yield* Effect.tryPromise({
      try: (signal) => new Following(stream, open).run(signal),
      catch: (error) =>
        error instanceof CommandFailed ? error : new CommandFailed({ message: `the stream failed: ${String(error)}` })
    })
  })

/** The first id of a stream: where it begins. */
export const firstId = Effect.fnUntraced(function* (stream: Omit<FollowedStream, "use">) {
  let first = ""
  yield* followServer({
    ...stream,
    use: async (_, id) => {
      first = id
      return false
    }
  })
  return first
})
