// A projection that does what its events say, and random events for it: whatever a handler may ask for, in any order, and every way to fail.
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { Agg, Column, Event, type FailurePolicy, Projection, ReadModel, Topic, Window } from "../../src/index.ts"
import { failing } from "./failing-effect.ts"
import { reuse, spelled } from "./odd-rows.ts"
import { oddColumns, oddContributions } from "./odd-columns.ts"
import type { Random } from "./random.ts"

const everybody = ["ann", "bob", "çelik", "d", "eve", "ﬀ 6"]
const tags = ["", "x", "y'z", 'NULL"', "\\"]
const texts = ["", "NULL", "null", "{}", '"', "'", "\\", "\\n", "a\nb\tc", "{a,b}", "ü😀", "%s $1 :x", "x".repeat(300)]
const days = ["1970-01-01", "1969-12-31", "1970-04-26", "2026-03-08", "2026-11-01", "1899-12-30", "2013-01-31"]

/** A step of a handler, as it stands in an event. `of` says to what. */
interface Step {
  readonly do: string
  readonly of?: string
  readonly row?: Readonly<Record<string, unknown>>
}
const eventFields = {
  id: Schema.String,
  user: Schema.String,
  friend: Schema.String,
  at: Schema.Int,
  tenant: Schema.String,
  steps: Schema.Array(Schema.Unknown)
}

const Happened = Event.make("happened", eventFields)
const Moved = Event.make("moved", eventFields)

/** What a run varies. */
export interface Variant {
  /** A second topic, whose events may write the same rows. */
  readonly hasTwoSources: boolean
  /** Tables and windows are shared with other projections. */
  readonly isShared: boolean
  /** Whether events ask for what PostgreSQL refuses. */
  readonly hasRefusals: boolean
  readonly failure: FailurePolicy
  /** Whether some handlers wait before they ask for anything. */
  readonly waits?: boolean
  /** Which value of the lookup by `friend` an event sees. */
  readonly asOf?: "appendTime" | "eventTime"
  /** The start of the names of all topics, so that applications can share brokers. Default: none. */
  readonly topicPrefix?: string
  /** Called when an event is handled. What it returns is called for each message that the handler publishes. */
  readonly onHandle?: (replaying: boolean, event: string) => (topic: Topic.Any, value: object) => void
}
/** A random variant; every second one is of one source that owns its rows, with the default policy. */
export const randomVariant = (random: Random): Variant => {
  const isPlain = random.chance(0.5)
  const then = isPlain ? "park" : random.pick(["park", "park", "skip", "stop"] as const)
  return {
    hasTwoSources: !isPlain && random.chance(0.4),
    isShared: !isPlain && random.chance(0.4),
    hasRefusals: true,
    // oxlint-disable-next-line unicorn/no-thenable -- a word of failure policies
    failure: {
      retry: Schedule.recurs(2),
      then,
      ...(then === "park" && random.chance(0.5) && { order: "key" as const })
    }
  }
}

/** The parts that a run has in hand. Once `isFixed` is set, handlers no longer throw. */
export const randomProjection = (random: Random, partitions: number, variant: Variant) => {
  const {
    asOf = "appendTime",
    failure,
    hasTwoSources,
    isShared: shared,
    onHandle,
    topicPrefix = "",
    waits = false
  } = variant
  // what only one partition may write: published windows, and folds
  const isOwned = !hasTwoSources && !shared
  const of = { id: "id", key: "user", eventTime: "at", tenant: "tenant", partitions } as const
  const source = Topic.events(`${topicPrefix}happened`, { events: [Happened], ...of })
  const second = Topic.events(`${topicPrefix}moved`, { events: [Moved], ...of })
  const state = { isFixed: false }
  const known = Topic.compacted(`${topicPrefix}known`, {
    value: { user: Schema.String, weight: Schema.Int, at: Schema.Int },
    key: "user",
    eventTime: "at",
    partitions
  })
  const order = ReadModel.table("order", {
    columns: {
      user: Schema.String,
      group: Schema.Int,
      select: Schema.NullOr(Schema.Int),
      text: Schema.optionalKey(Schema.String),
      real: Schema.Finite,
      flag: Schema.Boolean,
      at: Schema.optionalKey(Column.timestamptz),
      json: Schema.NullOr(Schema.Struct({ list: Schema.Array(Schema.String), none: Schema.Null }))
    },
    primaryKey: ["user", "group"],
    shared
  })
  const flat = ReadModel.table("flat", {
    columns: { user: Schema.String, tag: Schema.String },
    primaryKey: ["tag", "user"],
    shared
  })
  const numbers = { n: Agg.count, total: Agg.sum, low: Agg.min, high: Agg.max }
  const grace = random.pick(["0 minutes", "1 minute", "30 minutes"] as const)
  const tumbling = Window.tumbling("tumbling", {
    size: random.pick([["1 minute", "1 hour"], ["90 seconds"]] as const) as never as ["1 minute", "1 hour"],
    grace,
    key: { user: Schema.String },
    aggregate: numbers,
    shared,
    ...(isOwned && { publish: `${topicPrefix}tumbling.changed` })
  })
  // several partitions write its rows
  const common = Window.tumbling("user", {
    size: "1 hour",
    grace,
    key: { tag: Schema.String },
    aggregate: numbers,
    shared
  })
  const hopping = Window.hopping("hopping", {
    size: "10 minutes",
    every: random.pick(["10 minutes", "4 minutes", "1 minute"] as const),
    grace,
    key: { tag: Schema.String, user: Schema.String },
    aggregate: numbers,
    shared
  })
  const daily = Topic.records(`${topicPrefix}daily`, {
    value: { user: Schema.String, window_size: Schema.String, window_start: Schema.Int, n: Schema.Int },
    key: "user"
  })
  const calendar = Window.calendar("calendar", {
    unit: ["day", "month"],
    timeZone: random.pick(["America/New_York", "UTC", "Asia/Kathmandu"]),
    key: { user: Schema.String },
    aggregate: numbers,
    shared,
    ...(isOwned && { publish: daily })
  })
  const folded = Window.tumbling("folded", {
    size: "1 hour",
    grace,
    key: { user: Schema.String },
    aggregate: {
      n: Agg.count,
      high: Agg.max,
      names: Agg.fold({
        input: Schema.String,
        state: Schema.Array(Schema.String),
        initial: [],
        // some change the state in place, and then fail
        add: (all, name) => {
          if (name !== "NULL" && name !== "null") return [...all, name].slice(-5)
          ;(all as Array<string>).push(name)
          if (name === "NULL") throw new RangeError("the fold failed")
          return all.slice(-5)
        }
      })
    }
  })
  const ever = Window.global("ever", {
    key: { user: Schema.String, tag: Schema.String },
    aggregate: numbers,
    shared,
    ...(isOwned && { publish: `${topicPrefix}ever.changed` })
  })
  const said = Topic.records(`${topicPrefix}said`, {
    value: { user: Schema.String, text: Schema.String, weight: Schema.Int, seq: Schema.Int },
    key: "user",
    eventTime: () => 5
  })
  const told = Topic.records(`${topicPrefix}told`, {
    value: { user: Schema.String, to: Schema.String, seq: Schema.Int },
    key: "to",
    partitions: 2
  })
  const tables = { order, flat }
  const windows = { tumbling, user: common, hopping, calendar, folded, ever }
  const projection = Projection.make({
    name: "any",
    version: 1,
    source: hasTwoSources ? [source, second] : [source],
    failure,
    dedupe: { within: random.pick(["1 minute", "1 hour"] as const) },
    enrich: { known, friend: { topic: known, by: "friend", asOf } },
    writes: [order, flat, tumbling, common, hopping, calendar, ...(isOwned ? [folded] : []), ever, said, told],
    handle: ({ at, friend, id, steps, user }, out, context) => {
      const handle = () => {
        const onPublish = onHandle?.(context.replaying, `${id} at ${at}`)
        const publish = (topic: Topic.Any, value: object) => {
          onPublish?.(topic, value)
          out.publish(topic as never, value as never)
        }
        let effect: Effect.Effect<void, Error> | undefined
        const weight = (context.known?.weight ?? 1) * (context.friend?.weight ?? 1)
        for (const [seq, step] of (steps as ReadonlyArray<Step>).entries()) {
          const row = spelled({ user, ...step.row }) as never
          const table = tables[step.of as keyof typeof tables] as typeof order
          if (step.do === "upsert") out.upsert(table, (step.row?.["reused"] === true ? reuse(row) : row) as never)
          else if (step.do === "update") out.update(table, row)
          else if (step.do === "delete") out.delete(table, row)
          else if (step.do === "modify") out.modify(order, row, change(step.row!["how"] as string, row) as never)
          else if (step.do === "throw" && !state.isFixed) throw new RangeError(`step ${seq}`)
          else if (step.do === "throw") continue
          else if (step.do === "need") {
            const { weight: needed = 1 } = context.friend ?? {}
            if (needed % 2 === 1) throw new RangeError(`weight ${needed} at step ${seq}`)
          } else if (step.do === "wait") effect = failing(step.row as never, () => out.upsert(flat, row))
          else if (step.do === "add" && step.of === "folded" && !isOwned) continue
          else if (step.do === "add") out.add(windows[step.of as keyof typeof windows] as typeof tumbling, row)
          else if (step.do === "say") publish(said, { user, text: String(step.row!["text"]), weight, seq })
          else publish(told, { user, to: (step.row?.["to"] as string | undefined) ?? friend, seq })
        }
        return effect
      }
      return waits && steps.length % 2 === 1
        ? Effect.andThen(
            Effect.sleep(1),
            Effect.suspend(() => handle() ?? Effect.void)
          )
        : handle()
    }
  })
  return { projection, source, second, known, said, state }
}

type Order = { readonly user: string; readonly group: number; readonly select: number | null } & Record<string, unknown>
const change =
  (how: string, { group, user }: Order) =>
  (row: Order | undefined): unknown => {
    if (how === "throw") throw new SyntaxError("the change failed")
    if (how === "spoil") {
      ;(row?.["json"] as { list?: Array<string> } | null | undefined)?.list?.push("spoilt")
      throw new SyntaxError("the change failed late")
    }
    if (how === "bare") return { user, group }
    const fresh = { user, group, select: 0, real: 0.5, flag: false, json: null }
    switch (how) {
      case "count":
        return row === undefined ? fresh : { ...row, select: (row.select ?? 0) + 1 }
      case "delete":
        return undefined
      case "other":
        return { ...fresh, group: group - 1 }
      case "extra":
        return { ...fresh, extra: "not a column", real: -0, json: { none: null, list: ["b", "a"] } }
      case "grow":
        ;(row?.["json"] as { list?: Array<string> } | null | undefined)?.list?.push("more")
        return row
      case "null":
        return null
      case "strip":
        return row && { ...fresh, select: row.select, real: row["real"] }
      default:
        return row
    }
  }

const randomRow = (random: Random) => ({
  group: random.int(-1, 0),
  select: random.pick([null, 0, random.int(-1e9, 1e9), Number.MAX_SAFE_INTEGER - 1_000]),
  ...(random.chance(0.5) && { text: random.pick(texts) }),
  real: random.pick([0, 0.1, -1.5, 1e300, 5e-324, 123_456.789]),
  flag: random.chance(0.5),
  ...(random.chance(0.5) && { at: random.int(-2e12, 3e12) }),
  json: random.pick([null, { list: [random.pick(texts), "b"], none: null }, { list: [], none: null }])
})
const randomPatch = (random: Random) => {
  const { group, ...values } = randomRow(random)
  return { group, ...Object.fromEntries(Object.entries(values).filter(() => random.chance(0.4))) }
}
const contribution = (random: Random) => {
  const value = random.int(-1_000, 1_000)
  return {
    tag: random.pick(tags),
    n: random.pick([true, false, 1, 3]),
    // sums of quarters are exact, in whatever order they are added
    total: value / 4,
    low: value,
    high: value,
    names: random.pick(texts)
  }
}
const randomStep = (random: Random): Step => {
  const group = random.int(-1, 0)
  switch (random.int(0, 10)) {
    case 0:
      return { do: "upsert", of: "order", row: { ...randomRow(random), ...(random.chance(0.2) && { reused: true }) } }
    case 1:
    case 7:
      return { do: "update", of: "order", row: randomPatch(random) }
    case 2:
      return { do: "delete", of: "order", row: { group } }
    case 3:
    case 8:
      return {
        do: "modify",
        row: { group, how: random.pick(["count", "count", "delete", "strip", "same", "extra", "grow"]) }
      }
    case 4:
      return { do: random.pick(["upsert", "update", "delete"]), of: "flat", row: { tag: random.pick(tags) } }
    case 5:
      return { do: "say", row: { text: random.pick(texts) } }
    case 6:
      return { do: "tell" }
    default:
      return {
        do: "add",
        of: random.pick(["tumbling", "user", "hopping", "calendar", "folded", "ever"]),
        row: contribution(random)
      }
  }
}

/** A step that fails its event, or may. */
const oddStep = (random: Random, hasRefusals: boolean): Step => {
  const group = random.int(-1, 0)
  switch (random.pick(hasRefusals ? [0, 1, 2, 3, 4, 5, 6, 7, 8] : [0, 1, 5, 6, 7])) {
    case 0:
      return random.chance(0.5) ? { do: "throw" } : { do: "need" }
    case 1:
      return { do: "wait", row: { tag: random.pick(tags), times: random.int(0, 4), dies: random.chance(0.3) } }
    case 2:
    case 3:
      return { do: "upsert", of: "order", row: { ...randomRow(random), ...random.pick(oddColumns) } }
    case 4:
      return { do: "update", of: "order", row: { group, ...random.pick(oddColumns) } }
    case 5:
      return {
        do: "modify",
        row: { group, how: hasRefusals ? random.pick(["throw", "bare", "other", "null", "spoil"]) : "throw" }
      }
    case 6:
      return random.pick([
        { do: "modify", row: { group, how: "count", user: "someone else" } },
        { do: "tell", row: { to: "\u0000" } },
        { do: "say", row: { text: "\u0000 \ud83d" } }
      ])
    default:
      return {
        do: "add",
        of: random.pick(["tumbling", "user", "hopping", "calendar", "folded", "ever"]),
        row: { ...contribution(random), ...random.pick(hasRefusals ? oddContributions : oddContributions.slice(0, 4)) }
      }
  }
}
const oddTimes = [9e15, -9e15, Date.UTC(2100, 0, 1)]

type RandomEvent = Schema.Struct.Type<typeof eventFields> & { readonly type: "happened" | "moved" }
/**
 * Events in the order in which they come: some late, some twice, about a day where something is odd. One in twelve does something
 * that fails, or may fail, or has a time that is too far ahead or does not exist.
 */
export const randomEvents = (
  random: Random,
  count: number,
  { hasRefusals, hasTwoSources }: Variant
): ReadonlyArray<RandomEvent> => {
  const users = everybody.slice(0, random.int(2, everybody.length))
  const base = Date.parse(`${random.pick(days)}T00:00:00Z`)
  const paceMs = random.pick([1, 20_000, 900_000])
  const events: Array<RandomEvent> = []
  for (let i = 0; i < count; i++) {
    if (events.length > 0 && random.chance(0.08)) {
      const again = random.pick(events)
      events.push(random.chance(0.5) ? again : { ...again, at: again.at + random.int(-90_000, 90_000) })
      continue
    }
    const isOdd = random.chance(0.08)
    const lateMs = random.chance(0.2) ? random.int(0, 7_200_000) : random.int(0, 1_000)
    const steps = Array.from({ length: random.int(0, 6) }, () => randomStep(random))
    if (isOdd) steps.splice(random.int(0, steps.length), 0, oddStep(random, hasRefusals))
    events.push({
      type: hasTwoSources ? random.pick(["happened", "moved"] as const) : "happened",
      id: `e${i}`,
      user: random.pick(users),
      friend: random.pick(users),
      // half of them where spans begin and end
      at: random.chance(0.01)
        ? random.pick(oddTimes)
        : random.chance(0.5)
          ? base + i * paceMs - lateMs
          : Math.round((base + i * paceMs - lateMs) / 30_000) * 30_000,
      tenant: random.pick(["t", "u"]),
      steps
    })
  }
  return events
}
/** What is known of some users. */
export const knownUsers = everybody.slice(0, 4).map((user, i) => ({ user, weight: i + 2, at: -4e12 }))
