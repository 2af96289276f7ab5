// Clients that follow the protocol, of processes that are killed with SIGKILL: what they send again and resume comes to each event once.
import { spawn, type ChildProcess } from "node:child_process"
import { once } from "node:events"
import { createServer, type AddressInfo } from "node:net"
import { setTimeout } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { WebSocket } from "ws"
import { environmentOf } from "../../support/cli.ts"
import { randomOf } from "../../support/random.ts"

const root = fileURLToPath(new URL("../../..", import.meta.url))
const command = ["bin/millrace.mjs"]
const config = ["--config", "test/support/serving.config.ts"]

/** What to run, and what to do to it. */
export interface ServingOptions {
  readonly environment: Readonly<Record<string, string>>
  /** The arguments of `millrace start` of each process; the first one serves HTTP. */
  readonly processes: ReadonlyArray<ReadonlyArray<string>>
  /** Begins the names of topics, as `TEST_NAME` has it. */
  readonly name: string
  readonly events: number
  /** Events in one request. */
  readonly batch: number
  readonly kills: number
  readonly seed: number
}
/** What happened. Each event was accepted, is in SQL once, and came to each stream once; else `survive` rejects. */
export interface ServingReport {
  readonly events: number
  readonly kills: number
  /** Requests that were sent again, because no answer or a refusal that passes came. */
  readonly resent: number
  /** How often a stream was opened again. */
  readonly resumed: number
  readonly seconds: number
}

/** A free port of this machine. */
const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, "close")
  return port
}

/** A process that is started again whenever it was killed. */
class Killable {
  #child: ChildProcess | undefined
  readonly #args: ReadonlyArray<string>
  readonly #environment: Readonly<Record<string, string>>
  errors = ""

  constructor(args: ReadonlyArray<string>, environment: Readonly<Record<string, string>>) {
    this.#args = args
    this.#environment = environment
  }

  start(): void {
    const child = spawn(process.execPath, [...command, "start", ...config, ...this.#args], {
      cwd: root,
      env: environmentOf(this.#environment),
      stdio: ["ignore", "ignore", "pipe"]
    })
    child.stderr.on("data", (chunk: Buffer) => (this.errors = (this.errors + chunk.toString()).slice(-20_000)))
    this.#child = child
  }

  async end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, "exit")
    child.kill(signal)
    await ended
  }
}

/** How long the whole may take without anything new, in milliseconds. */
const patienceMs = 120_000
/** The pause before a client tries again. */
const pauseMs = 50

/** What the clients have done so far. */
interface Progress {
  accepted: number
  resent: number
  resumed: number
  isOver: boolean
}

const idOf = (number: number): string => `o-${number}`
const bodyOf = (from: number, to: number): string =>
  Array.from({ length: to - from }, (_, i) =>
    JSON.stringify({
      type: "placed",
      id: idOf(from + i),
      customer: `c-${(from + i) % 37}`,
      at: 1_767_225_600_000 + from + i
    })
  ).join("\n")

/** Sends batches, each as it is until it is accepted as a whole. */
const send = async (
  url: string,
  batches: ReadonlyArray<readonly [number, number]>,
  progress: Progress
): Promise<void> => {
  for (const [from, to] of batches) {
    const body = bodyOf(from, to)
    for (;;) {
      const status = await fetch(`${url}/v1/events?results=errors`, {
        method: "POST",
        headers: { "content-type": "application/x-ndjson" },
        body,
        signal: AbortSignal.timeout(15_000)
      }).then(
        async (response) => {
          const text = await response.text()
          if (response.status >= 400 && response.status !== 429 && response.status < 500)
            throw new Error(`${response.status}: ${text.slice(0, 500)}`)
          return response.status
        },
        () => 0
      )
      if (status === 202) break
      progress.resent++
      await setTimeout(pauseMs)
    }
    progress.accepted += to - from
  }
}

/** Follows a topic by server-sent events, from the last id that it has whenever the stream ends. Adds the ids of records to `ids`. */
const followEvents = async (url: string, ids: Array<string>, progress: Progress): Promise<void> => {
  let last: string | undefined
  while (!progress.isOver) {
    const headers: Record<string, string> = last === undefined ? {} : { "last-event-id": last }
    try {
      const response = await fetch(`${url}?from=earliest`, { headers })
      let rest = ""
      for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
        const frames = (rest + chunk).split("\n\n")
        rest = frames.pop()!
        for (const frame of frames) {
          const data = /^data: (.*)$/m.exec(frame)?.[1]
          const id = /^id: (.*)$/m.exec(frame)?.[1]
          if (id === undefined) continue
          if (data !== undefined) ids.push((JSON.parse(data) as { readonly id: string }).id)
          last = id
        }
        if (progress.isOver) return
      }
    } catch {
      // the server is away
    }
    progress.resumed++
    await setTimeout(pauseMs)
  }
}
/** The same by WebSocket. */
const followMessages = async (url: string, ids: Array<string>, progress: Progress): Promise<void> => {
  let last = "earliest"
  while (!progress.isOver) {
    const socket = new WebSocket(`${url.replace("http", "ws")}?from=${last}`)
    socket.on("error", () => {})
    socket.on("message", (text) => {
      const { data, event, id } = JSON.parse(String(text)) as {
        readonly id?: string
        readonly event: string
        readonly data?: { readonly id: string }
      }
      if (event === "record") ids.push(data!.id)
      if (id !== undefined) last = id
    })
    const closed = new Promise((done) => socket.once("close", done))
    while (!progress.isOver && (await Promise.race([closed, setTimeout(pauseMs, "open")])) === "open");
    socket.terminate()
    progress.resumed++
    await setTimeout(pauseMs)
  }
}

const isReady = async (url: string): Promise<boolean> =>
  fetch(`${url}/readyz`, { signal: AbortSignal.timeout(5_000) }).then(
    async (response) => {
      await response.text()
      return response.ok
    },
    () => false
  )
/** Waits until a condition holds. Rejects if what `seen` counts stays the same for too long. */
const until = async (what: string, seen: () => number, holds: () => boolean | Promise<boolean>): Promise<void> => {
  let last = { count: seen(), at: Date.now() }
  while (!(await holds())) {
    if (seen() !== last.count) last = { count: seen(), at: Date.now() }
    if (Date.now() - last.at > patienceMs) throw new Error(`${what}: nothing new for ${patienceMs / 1_000} s`)
    await setTimeout(20)
  }
}

/** Rows of the read model, by HTTP. */
const rowsOf = async (url: string): Promise<ReadonlyArray<{ readonly id: string; readonly times: number }>> => {
  const rows: Array<{ readonly id: string; readonly times: number }> = []
  for (let after = ""; ;) {
    const response = await fetch(`${url}/v1/views/seen_orders?limit=1000${after}`)
    const page = (await response.json()) as { readonly rows: typeof rows; readonly next: string | null }
    rows.push(...page.rows)
    if (page.next === null) return rows
    after = `&after=${encodeURIComponent(page.next)}`
  }
}
const assertOnce = (what: string, ids: ReadonlyArray<string>, events: number): void => {
  const distinct = new Set(ids)
  const missing = Array.from({ length: events }, (_, i) => idOf(i)).filter((id) => !distinct.has(id))
  if (missing.length > 0 || ids.length !== events)
    throw new Error(
      `${what}: ${ids.length} of ${events}, ${distinct.size} distinct; missing ${missing.slice(0, 5).join(", ")}`
    )
}

/** Runs processes and clients, kills the processes in turn, and asserts that each event came once to everything. */
export const survive = async (options: ServingOptions): Promise<ServingReport> => {
  const { batch, environment, events, kills, name, processes, seed } = options
  const began = performance.now()
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  const all = processes.map(
    (args, i) => new Killable([...args, "--port", i === 0 ? String(port) : "0"], { ...environment, TEST_NAME: name })
  )
  const progress: Progress = { accepted: 0, resent: 0, resumed: 0, isOver: false }
  const [bySse, byWebSocket]: [Array<string>, Array<string>] = [[], []]
  const random = randomOf(seed)
  const seen = () => progress.accepted + bySse.length + byWebSocket.length
  const clients: Array<Promise<void>> = []
  try {
    for (const one of all) one.start()
    await until("start", seen, () => isReady(url))
    const stream = `${url}/v1/topics/${name}.receipts/stream`
    clients.push(followEvents(stream, bySse, progress), followMessages(stream, byWebSocket, progress))
    const batches = Array.from(
      { length: Math.ceil(events / batch) },
      (_, i) => [i * batch, Math.min(events, (i + 1) * batch)] as const
    )
    // keys do not meet in two batches that are under way, for a batch that is sent again must not overtake: one sender
    const sending = send(url, batches, progress)
    clients.push(sending)
    let failure: unknown
    sending.catch((error: unknown) => (failure = error))
    for (let kill = 0; kill < kills; kill++) {
      // while events are sent and streamed: spread over all of them
      const goal = Math.floor(((kill + random.next()) / kills) * events * 0.9)
      const isStreamKill = kill % 2 === 1
      await until(`kill ${kill + 1}`, seen, () => {
        if (failure !== undefined) throw failure
        return (isStreamKill ? bySse.length : progress.accepted) >= goal
      })
      const one = all[kill % all.length]!
      await one.end("SIGKILL")
      one.start()
    }
    await until("all accepted", seen, () => {
      if (failure !== undefined) throw failure
      return progress.accepted === events
    })
    await until("all streamed", seen, () => bySse.length >= events && byWebSocket.length >= events)
    await until("ready", seen, () => isReady(url))
    // what would come twice comes with the next messages
    await setTimeout(300)
    assertOnce("server-sent events", bySse, events)
    assertOnce("WebSocket", byWebSocket, events)
    const rows = await rowsOf(url)
    assertOnce(
      "rows of SQL",
      rows.flatMap(({ id, times }) => Array.from({ length: times }, () => id)),
      events
    )
    const { resent, resumed } = progress
    return { events, kills, resent, resumed, seconds: Math.round((performance.now() - began) / 1_000) }
  } catch (error) {
    const text = all.map(({ errors }) => errors.slice(-2_000)).join("\n--\n")
    throw new Error(`${String(error)}; seed ${seed}; the processes said:\n${text}`, { cause: error })
  } finally {
    progress.isOver = true
    await Promise.all(all.map((one) => one.end("SIGTERM")))
    await Promise.allSettled(clients.slice(0, 2))
  }
}
