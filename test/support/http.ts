// A server on a log in memory, for tests over real HTTP, and a client for it.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { partitionOf } from "../../src/model/partitioner.ts"
import * as Deferred from "effect/Deferred"
import { Log, LogError, specOf, type LogRecord, type NewRecord } from "../../src/log/log.ts"
import { make } from "../../src/memory/log.ts"
import { catalogOf } from "../../src/server/http/catalog.ts"
import { serve, type ServeOptions } from "../../src/server/server.ts"
import type { ChangeSource } from "../../src/server/changes/source.ts"
import type { ViewReader } from "../../src/server/views/reader.ts"
import application from "../../millrace.config.ts"

/** The reference application, with the type that the server expects. */
export const reference = application as unknown as ServeOptions["application"]

/** Creates the application's topics, with 12 partitions unless a topic declares a number. */
export const declare = (log: Log["Service"], app = reference) =>
  Effect.runPromise(log.declare([...catalogOf(app, 0).topics.values()].map(({ topic }) => specOf(topic, 12))))

/** Views of a database that has none yet. */
export const noViews: ViewReader = {
  columns: async () => new Map(),
  rows: async () => ({ rows: [], isCut: false }),
  behind: async () => [],
  nextGoals: async () => ({})
}

/** Changes of a database that has no views. */
export const noChanges: ChangeSource = {
  open: () => Promise.reject(new Error("there are no views")),
  keep: async () => false,
  state: async () => ({ snapshot: "1:1:", end: "changes_expired", hasChanges: false }),
  snapshot: async () => "1:1:",
  rows: async () => ({ snapshot: "1:1:", rows: [], isCut: false }),
  changes: async () => ({ rows: [], isCut: false }),
  check: async () => {},
  tidy: async () => 0
}

/** Starts a server on `log`; default: a new log in memory with the application's topics. */
export const start = async (options: Partial<ServeOptions> = {}, given?: Log["Service"]) => {
  const log = given ?? make().log
  if (given === undefined) await declare(log, options.application)
  const scope = Effect.runSync(Scope.make())
  const context = Context.make(Log, log).pipe(Context.add(Scope.Scope, scope))
  const served = await Effect.runPromiseWith(context)(serve({ application: reference, port: 0, ...options }))
  return { ...served, log, stop: () => Effect.runPromise(Scope.close(scope, Exit.void)) }
}
export type Server = Awaited<ReturnType<typeof start>>

/** A result of a post: the fields that tests use. */
export interface Result {
  readonly status: "accepted" | "rejected"
  readonly topic?: string
  readonly partition?: number
  readonly position?: number
  readonly event_id?: string
  readonly error?: {
    readonly index: number
    readonly line?: number
    readonly code: string
    readonly message: string
    readonly path?: string
    readonly try: string
  }
}
export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: {
    readonly trace_id: string
    readonly accepted: number
    readonly rejected: number
    readonly token?: string
    readonly results: ReadonlyArray<Result>
    readonly error?: { readonly code: string; readonly message: string; readonly try: string }
  }
}

export const json = "application/json"
export const ndjson = "application/x-ndjson"

/** Posts to `/v1/events` and reads the response. */
export const post = async (
  server: Pick<Server, "url">,
  body: string | Uint8Array<ArrayBuffer>,
  headers: Record<string, string> = { "content-type": json },
  query = ""
): Promise<Answer> => {
  const response = await fetch(`${server.url}/v1/events${query}`, { method: "POST", body, headers })
  return { status: response.status, headers: response.headers, body: (await response.json()) as Answer["body"] }
}

/** The response to a GET, with its JSON as the type that the test expects. */
export const get = async <A = { readonly error: { readonly code: string; readonly try: string } }>(
  url: string,
  headers: Record<string, string> = {}
): Promise<{ readonly status: number; readonly body: A }> => {
  const response = await fetch(url, { headers })
  return { status: response.status, body: (await response.json()) as A }
}

/** Every record of a topic, partition by partition. */
export const recordsOf = (log: Log["Service"], topic: string): Promise<ReadonlyArray<LogRecord>> =>
  Effect.runPromise(
    Effect.gen(function* () {
      const found: Array<LogRecord> = []
      for (const { end, partition, start } of yield* log.bounds(topic)) {
        for (let position = start; position < end;) {
          const batch = yield* log.read(topic, partition, position)
          found.push(...batch.records)
          position = batch.next
        }
      }
      return found
    })
  )

let count = 0
/** A valid event with an id of its own. */
export const transfer = (fields: Readonly<Record<string, unknown>> = {}) => ({
  type: "transfer",
  event_id: `t-${++count}`,
  entity_id: `e-${count % 7}`,
  amount: 10,
  occurred_at: Date.now(),
  tenant: "acme",
  ...fields
})

/** A frame of an HTTP stream. */
export interface Frame {
  readonly id?: string
  readonly event?: string
  readonly data?: string
  readonly comment?: string
}

const frameOf = (text: string): Frame => {
  const frame: Record<string, string> = {}
  for (const line of text.split("\n")) {
    const colon = line.indexOf(":")
    frame[colon === 0 ? "comment" : line.slice(0, colon)] = line.slice(colon + 1).trimStart()
  }
  return frame
}

/** Opens an HTTP stream. `next` reads one frame (comments are frames too), and resolves to undefined at the end. */
export const stream = async (url: string, headers: Record<string, string> = {}) => {
  const abort = new AbortController()
  const response = await fetch(url, { headers, signal: abort.signal })
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ""
  const frame = async (): Promise<Frame | undefined> => {
    for (;;) {
      const end = rest.indexOf("\n\n")
      if (end !== -1) {
        const text = rest.slice(0, end)
        rest = rest.slice(end + 2)
        return frameOf(text)
      }
      const { done, value } = await reader.read()
      if (done) return undefined
      rest += value
    }
  }
  /** The next frames that are records. */
  const records = async (count: number): Promise<ReadonlyArray<Frame>> => {
    const found: Array<Frame> = []
    while (found.length < count) {
      const next = await frame()
      if (next === undefined) throw new Error(`the stream ended after ${found.length} records of ${count}`)
      if (next.data !== undefined && next.id !== undefined) found.push(next)
    }
    return found
  }
  const close = () => {
    abort.abort()
    // Deno closes the connection of an aborted response only if its body is cancelled, too
    reader.cancel().catch(() => {})
  }
  return { status: response.status, headers: response.headers, frame, records, close }
}

/** A log whose appends a test can delay or fail. */
export const faulty = () => {
  const { log } = make()
  let gate: Deferred.Deferred<void> | undefined
  let error: LogError | undefined
  let calls = 0
  const append: Log["Service"]["append"] = (topic, records) =>
    Effect.suspend(() => {
      calls++
      const held = gate === undefined ? Effect.void : Deferred.await(gate)
      const failed = error
      return Effect.andThen(held, failed === undefined ? log.append(topic, records) : Effect.fail(failed))
    })
  return {
    log: { ...log, append } as Log["Service"],
    calls: () => calls,
    hold: () => {
      gate = Deferred.makeUnsafe<void>()
      return () => Effect.runSync(Deferred.succeed(gate!, undefined))
    },
    fail: (retryable: boolean) =>
      (error = new LogError({
        operation: "append",
        topic: "events.raw.v1",
        retryable,
        reason: "the database is away"
      })),
    mend: () => (error = undefined)
  }
}

/** An alert, as the relay appends it. */
export const alert = (id: string, entity: string, tenant = "acme"): NewRecord => ({
  partition: partitionOf(entity, 12),
  key: entity,
  value: JSON.stringify({ alert_id: id, entity_id: entity, score: 1000 }),
  eventTime: 0,
  eventId: id,
  tenant,
  traceparent: undefined,
  schemaVersion: undefined,
  headers: {}
})
/** Appends to `alerts.v1`. */
export const publish = (server: Server, records: ReadonlyArray<NewRecord>) =>
  Effect.runPromise(server.log.append("alerts.v1", records))
/** The ids of alerts. */
export const idsOf = (frames: ReadonlyArray<Frame>) =>
  frames.map(({ data }) => (JSON.parse(data!) as { alert_id: string }).alert_id)

/** Events as NDJSON. */
export const lines = (events: ReadonlyArray<object>): string => events.map((event) => JSON.stringify(event)).join("\n")
/** Valid events. */
export const many = (count: number, fields: Readonly<Record<string, unknown>> = {}) =>
  Array.from({ length: count }, () => transfer(fields))
