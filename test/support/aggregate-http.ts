// A server of aggregates on an event store in memory, for tests over real HTTP, and a client for it.
import * as Effect from "effect/Effect"
import { Schema } from "effect"
import { AlertCase } from "../../aggregates/alert-case.ts"
import type { EventStore } from "../../src/aggregate/event-store.ts"
import { Aggregate, Event, Personal } from "../../src/index.ts"
import { make as makeStore } from "../../src/memory/event-store.ts"
import { make as makeLog } from "../../src/memory/log.ts"
import type { ServeOptions } from "../../src/server/server.ts"
import { declare, reference, start, type Server } from "./http.ts"

/** The fields of answers that tests use. */
export interface Body {
  readonly streams: ReadonlyArray<{ readonly id: string }>
  readonly version: number
  readonly events: ReadonlyArray<Readonly<Record<string, unknown>>>
  readonly repeated: boolean
  readonly state: unknown
  readonly next: number | null
  readonly title: string
  readonly status: number
  readonly detail: string
  readonly tag: string
  readonly rejection: unknown
  readonly error: { readonly code: string; readonly message: string; readonly path?: string; readonly try: string }
  readonly trace_id: string
}
export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: Body
}

const Counted = Event.make("counted", { n: Schema.Int })
export class TooMany extends Schema.TaggedError<TooMany>()("TooMany", { status: Schema.String, most: Schema.Int }) {}
/** An aggregate without a field for its id, whose decider can fail, and whose rejection has a field with a reserved name. */
const Counter = Aggregate.make({
  name: "counter",
  events: [Counted],
  commands: { count: { n: Schema.Int }, "take.over": {}, fail: {}, fill: { n: Schema.Int } },
  // `evolve` can make states that do not fit
  state: Schema.Struct({ sum: Schema.Int.check(Schema.isGreaterThan(-50)) }),
  initial: { sum: 0 },
  evolve: { counted: ({ sum }, { n }) => ({ sum: sum + n }) },
  decide: {
    count: ({ sum }, { n }) => (sum + n > 10 ? new TooMany({ status: "full", most: 10 }) : Counted.make({ n })),
    "take.over": () => [],
    // more events than one append takes, and not as many as anyone asks for
    fill: (_, { n }) => Array.from({ length: Math.min(n, 20_000) }, () => Counted.make({ n: 0 })),
    fail: () => {
      throw new Error("a bug in decide")
    }
  }
})
const Joined = Event.make("person.joined", { person_id: Schema.String })
const Named = Event.make("person.named", { person_id: Schema.String, name: Personal(Schema.String) })
/** An aggregate with a personal field, whose functions throw errors that quote personal data. */
const Person = Aggregate.make({
  name: "person",
  id: "person_id",
  subject: ({ person_id }) => {
    if (person_id === "bad-subject") throw new RangeError("no subject for secret@example.com")
    return person_id
  },
  events: [Joined, Named],
  commands: { join: { person_id: Schema.String }, fail: { person_id: Schema.String } },
  state: Schema.Struct({ joined: Schema.Boolean }),
  initial: { joined: false },
  evolve: {
    "person.joined": (_, { person_id }) => {
      if (person_id === "bad-evolve") throw new RangeError("no state for secret@example.com")
      return { joined: true }
    },
    "person.named": (state) => state
  },
  decide: {
    join: (_, { person_id }) => Joined.make({ person_id }),
    fail: () => {
      throw new RangeError("no decision about secret@example.com")
    }
  }
})
export const application = { ...reference, aggregates: [AlertCase, Counter, Person] }

/** Starts a server of the application on an event store in memory, which `wrap` may change. */
export const startServer = async (
  wrap: (store: EventStore["Service"]) => EventStore["Service"] = (store) => store,
  limits = {},
  options: Partial<ServeOptions> = {}
) => {
  const { log } = makeLog()
  await declare(log, application)
  const store = makeStore(log)
  await Effect.runPromise(store.declare(application.aggregates.map(({ name, partitions }) => ({ name, partitions }))))
  return {
    ...(await start(
      { application, eventStore: wrap(store), limits: { eventLoopDelayMs: 0, ...limits }, ...options },
      log
    )),
    store
  }
}
/** Calls a route below `/v1/aggregates/`; with a body by POST. */
export const call = async (
  { url }: Pick<Server, "url">,
  path: string,
  body?: unknown,
  headers: Readonly<Record<string, string>> = {}
): Promise<Answer> => {
  const init =
    body === undefined
      ? { headers }
      : {
          method: "POST",
          body: typeof body === "string" ? body : JSON.stringify(body),
          headers: { "content-type": "application/json", ...headers }
        }
  const response = await fetch(`${url}/v1/aggregates/${path}`, init)
  const text = await response.text()
  return { status: response.status, headers: response.headers, body: (text === "" ? {} : JSON.parse(text)) as Body }
}
/** The fields of a command that opens a case. */
export const opened = { at: 1_700_000_000_000, entity_id: "N1", score: 5 }
let cases = 0
/** The path of a case that nothing has happened to. */
export const newCase = () => `alert-case/case-${++cases}`
