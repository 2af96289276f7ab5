// Windows as users declare them (aggregates by key and span of event time), and the spans that contain an event. Pure.
import type * as Duration from "effect/Duration"
import type * as Schema from "effect/Schema"
import { calendarSpan, calendarUnits, isTimeZone, weekStarts, type CalendarUnit, type WeekStart } from "./calendar.ts"
import { shown } from "../text/text.ts"
import { assertFields, assertOptions, refuse } from "./declaration.ts"
import { remember, keyText, list, type Fields, type One, type OneOrMore, type Simplify, type TypeOf } from "./fields.ts"
import { checkedChoice, checkedDuration, invalidOption } from "./options.ts"
import { checkedColumn, checkedRelationName } from "./read-model.ts"
import { Topic, type Sink } from "./topic.ts"
import { assertFold } from "./fold-options.ts"

/** The size of a window, as text. `"5 minutes"` gives windows the label `5m`. */
export type Size = `${number} ${Duration.Unit}`
type Short<U> = U extends "milli" | "millis"
  ? "ms"
  : U extends "second" | "seconds"
    ? "s"
    : U extends "minute" | "minutes"
      ? "m"
      : U extends "hour" | "hours"
        ? "h"
        : U extends "day" | "days"
          ? "d"
          : U extends "week" | "weeks"
            ? "w"
            : U
type Label<S> = S extends `${infer N} ${infer U}` ? `${N}${Short<U> & string}` : S & string

/** An aggregate: how contributions become the value of a column. With `merge`, a batch is combined into one delta before it is stored. */
export interface Agg<in In, in out Out> {
  /** What the database does with the delta of a batch. The row of a `fold` is read, changed by the runner and written back. */
  readonly sql: "count" | "sum" | "min" | "max" | "fold"
  /** The schema of the column, if it is not a number. */
  readonly state?: Schema.Constraint
  /** The value before the first contribution; undefined: the first contribution is the value. */
  readonly initial: Out | undefined
  /** The value after a contribution. */
  readonly add: (state: Out | undefined, input: In) => Out
  /** Combines the values of two batches; undefined: contributions are added one by one. */
  readonly merge: ((a: Out, b: Out) => Out) | undefined
}
/** The aggregates that a window may have, as `{ flights: Agg.count, longest: Agg.max }`. */
export const Agg = {
  /** The number of contributions that are true, or the sum of whole numbers. `bigint` in SQL. */
  count: { sql: "count", initial: 0, add: (n = 0, by) => n + Number(by), merge: (a, b) => a + b } as Agg<
    number | boolean,
    number
  >,
  /** The sum of numbers, added in the order of the log. `double precision` in SQL. */
  sum: { sql: "sum", initial: 0, add: (n = 0, by) => n + by, merge: (a, b) => a + b } as Agg<number, number>,
  /** The smallest contribution. `double precision` in SQL. */
  min: { sql: "min", initial: undefined, add: (n, by) => (n === undefined || by < n ? by : n), merge: Math.min } as Agg<
    number,
    number
  >,
  /** The largest contribution. `double precision` in SQL. */
  max: { sql: "max", initial: undefined, add: (n, by) => (n === undefined || by > n ? by : n), merge: Math.max } as Agg<
    number,
    number
  >,
  /**
   * An aggregate of your own. Its rows are read and written back, so it needs keys that one partition owns. `jsonb` in SQL.
   *
   * ```ts
   * const spread = Agg.fold({
   *   input: Schema.Finite,
   *   state: Schema.NullOr(Schema.Struct({ least: Schema.Finite, most: Schema.Finite })),
   *   initial: null,
   *   add: (state, n) => ({ least: Math.min(state?.least ?? n, n), most: Math.max(state?.most ?? n, n) })
   * })
   * ```
   */
  fold: <In extends Schema.Constraint, const Out extends Schema.Constraint>(options: {
    /** The schema of a contribution. */
    readonly input: In
    /** The schema of the column's value, which is stored as JSON. */
    readonly state: Out
    /** The value before the first contribution. */
    readonly initial: NoInfer<Out["Type"]>
    /** The value after a contribution. Pure. */
    readonly add: (state: Out["Type"], input: In["Type"]) => NoInfer<Out["Type"]>
    /** Combines two values, so that a batch is added as one. It must give the same as adding one by one. */
    readonly merge?: (a: Out["Type"], b: Out["Type"]) => NoInfer<Out["Type"]>
  }): Agg<In["Type"], Out["Type"]> => {
    assertFold(options)
    return { sql: "fold", merge: undefined, ...options } as never
  }
}
/** Aggregates by column. */
export type Aggs = { readonly [column: string]: Agg<never, any> } // `any`: Out is invariant
type Outputs<A extends Aggs> = { readonly [K in keyof A]: A[K] extends Agg<never, infer O> ? O : never }
type Inputs<A extends Aggs> = { readonly [K in keyof A]: A[K] extends Agg<infer I, any> ? I : never }
type Sized<L> = { readonly window_size: L; readonly window_start: number }
type Bounded = { readonly window_start: number; readonly window_end: number }

/** Spans of one length that start at the multiples of `everyMs`. */
export interface FixedSpan {
  readonly label: string
  readonly sizeMs: number
  readonly everyMs: number
}
/** How a window divides time. */
export type Shape =
  | { readonly type: "fixed"; readonly spans: ReadonlyArray<FixedSpan> }
  | { readonly type: "session"; readonly gapMs: number }
  | {
      readonly type: "calendar"
      readonly units: ReadonlyArray<CalendarUnit>
      readonly timeZone: string
      readonly weekStart: WeekStart
    }
  | { readonly type: "global" }
/** Aggregates by key and span of event time. Its rows are a read model of the same name. */
export interface Window<out Name extends string, out Row extends object, in Add, out Published = never> {
  /** Distinguishes windows from tables and topics. */
  readonly kind: "window"
  /** The name of the window and of its table. */
  readonly name: Name
  /** How it divides time. */
  readonly shape: Shape
  /** The columns of the key, in order; `keyFields` has their schemas. */
  readonly key: ReadonlyArray<string>
  /** The schemas of the key's columns by name. */
  readonly keyFields: Fields
  /** The aggregates by column. */
  readonly aggregate: Aggs
  /** How long after its end a window still accepts events, in milliseconds of stream time. */
  readonly graceMs: number
  /** When rows are published. */
  readonly emit: "onUpdate" | "onWindowClose"
  /** Several projections may write it; see `Table.shared`. */
  readonly shared: boolean
  /** The column of the key that is a row's tenant, if it is not called `tenant`. */
  readonly tenant?: string | undefined
  /** The topic that changed rows are published to, if there is one; other projections can read it. */
  readonly topic: Published
  /** The type of a row, for `typeof`: there is no such value. */
  readonly Row: Row
  /** The type of a contribution, for `typeof`: there is no such value. */
  readonly add: (contribution: Add) => void
}
export declare namespace Window {
  /** Any window. */
  type Any = Window<string, object, never, Topic.Any>
  /** The argument of `out.add`: the columns of the key, and a contribution to every aggregate. */
  type Add<W> = W extends Window<string, object, infer A, unknown> ? A : never
}
/** The options of `Window.calendar` besides those of all windows. */
export interface CalendarOptions<U> {
  /** The unit of the windows, or several: `"day"`, `"week"`, `"month"`, `"year"`. */
  readonly unit: U
  /** A name of the IANA database, as `Europe/Berlin`, or `UTC`. Its rules are those of the runtime. */
  readonly timeZone: string
  /** The day on which weeks begin. Default `monday`. */
  readonly weekStartsOn?: WeekStart
}
/** The options that all windows have. */
export interface WindowOptions<F extends Fields, A extends Aggs, P> {
  /** The columns of the key. A window has one row for each key and span of time. */
  readonly key: F
  /** The aggregates by column, at least one, as `{ flights: Agg.count, longest: Agg.max }`. */
  readonly aggregate: A
  /** How long after its end a window still accepts events, in stream time. Default 0. */
  readonly grace?: Duration.Input
  /** Publish a row after each batch that changed it (default), or once, when its window has closed. */
  readonly emit?: "onUpdate" | "onWindowClose"
  /** The topic that rows are published to; its values may have fewer fields than a row. A name declares a topic with all fields. */
  readonly publish?: P
  /** Several projections contribute to the window. Default: it belongs to one projection, each version of which has rows of its own. */
  readonly shared?: boolean
  /**
   * The column of the key, a text, that is a row's tenant: credentials of a tenant see only its rows, and corrections of a row have its tenant.
   * Default: the column `tenant`, if the key has one.
   */
  readonly tenant?: string & keyof F
}
/** The options of any window. */
type AnyOptions = Omit<WindowOptions<Fields, Aggs, unknown>, "tenant"> & { readonly tenant?: string }
type PublishedTo<P, Row> = P extends string ? Topic<P, Row> : P
type RowOf<F extends Fields, W, A extends Aggs> = Simplify<TypeOf<F> & W & Outputs<A>>
type AddOf<F extends Fields, A extends Aggs> = Simplify<TypeOf<F> & Inputs<A>>
const short = { milli: "ms", second: "s", minute: "m", hour: "h", day: "d", week: "w" } as Record<string, string>
const label = (size: Size) => size.replace(/^(\S+)\s+(\w+?)(s?)$/, (_, n, unit, s) => n + (short[unit] ?? unit + s))
/** The most spans that one event may be in: so many rows it changes. */
const mostSpans = 1_000
const sizesOf = (name: string, sizes: OneOrMore<Size>, every?: Duration.Input) =>
  list<Size>(sizes).map((size) => {
    if (typeof size !== "string") throw invalidOption(`window ${name}: size`, size, 'write it as "5 minutes"')
    // a window of length 0 would have infinitely many spans
    const sizeMs = checkedDuration(`window ${name}: size`, size, { least: 1 })
    const everyMs = every === undefined ? sizeMs : checkedDuration(`window ${name}: every`, every, { least: 1 })
    return { label: label(size), sizeMs, everyMs }
  })
const own = {
  fixed: ["window_size", "window_start"],
  calendar: ["window_size", "window_start"],
  session: ["window_start", "window_end"],
  global: []
}
/** Checks what types do not express: columns with the same name, and shapes that would count an event twice or never. */
const assertSound = (name: string, shape: Shape, { aggregate, key }: AnyOptions) => {
  const columns = [...own[shape.type], ...Object.keys(key), ...Object.keys(aggregate)]
  const refuse = (reason: string) => {
    throw new Error(`window ${name}: ${reason}`)
  }
  if (twice(columns) !== undefined) refuse(`two columns are called ${twice(columns)}; rename one of them`)
  if (shape.type === "fixed") assertSpans(refuse, shape.spans)
  if (shape.type === "calendar") assertUnits(refuse, shape.units)
  if (Object.keys(aggregate).length === 0) refuse("it has no aggregate; add at least one, as `{ n: Agg.count }`")
  if (shape.type === "global" && Object.keys(key).length === 0)
    refuse(
      "a global window needs a key, because all partitions would write the same row otherwise; add a column to `key`"
    )
}
const twice = (names: ReadonlyArray<string>) => names.find((other, i) => names.indexOf(other) < i)
const assertSpans = (refuse: (reason: string) => void, spans: ReadonlyArray<FixedSpan>) => {
  if (spans.length === 0) refuse("it has no size; list at least one")
  for (const [i, { everyMs, label, sizeMs }] of spans.entries()) {
    const same = spans.slice(0, i).find((other) => other.sizeMs === sizeMs)
    if (same?.label === label) refuse(`the size or unit ${label} is listed twice; list it once`)
    if (same !== undefined)
      refuse(`the sizes ${same.label} and ${label} are the same, so each event would count twice; list one of them`)
    if (everyMs > sizeMs)
      refuse(
        "`every` is longer than `size`, so some events would be in no window; make `every` at most as long as `size`"
      )
    if (sizeMs > mostSpans * everyMs)
      refuse(
        `each event would be in ${Math.ceil(sizeMs / everyMs)} windows, and change as many rows; make \`every\` at least ${sizeMs / mostSpans} ms`
      )
  }
}
const assertUnits = (refuse: (reason: string) => void, units: ReadonlyArray<CalendarUnit>) => {
  if (units.length === 0) refuse("it has no unit; list at least one")
  if (twice(units) !== undefined) refuse(`the size or unit ${twice(units)} is listed twice; list it once`)
}
const calendarOf = (name: string, options: CalendarOptions<OneOrMore<CalendarUnit>>): Shape => {
  const { timeZone, weekStartsOn = "monday" } = options
  const units = list<CalendarUnit>(options.unit)
  for (const unit of units) checkedChoice(`window ${name}: unit`, unit, calendarUnits)
  if (typeof timeZone !== "string" || !isTimeZone(timeZone))
    throw invalidOption(
      `window ${name}: timeZone`,
      timeZone,
      'it is no time zone that Intl knows; use a name such as "Europe/Berlin" or "UTC"'
    )
  const weekStart = checkedChoice(`window ${name}: weekStartsOn`, weekStartsOn, weekStarts)
  return { type: "calendar", units, timeZone, weekStart }
}
const graceOf = (name: string, { emit = "onUpdate", grace = 0 }: AnyOptions) => {
  checkedChoice(`window ${name}: emit`, emit, ["onUpdate", "onWindowClose"])
  const graceMs = checkedDuration(`window ${name}: grace`, grace, { orInfinite: true })
  if (graceMs === Infinity && emit === "onWindowClose")
    throw invalidOption(
      `window ${name}: grace`,
      grace,
      "so the window would never close and `emit` nothing; make it finite"
    )
  return graceMs
}
const namedTopics = new WeakSet<object>()
/** Whether a window declared the topic itself, by a name: it has all columns, and its key is that of the row. */
export const isNamedTopic = (topic: object): boolean => namedTopics.has(topic)
const namedTopic = (name: string, key: ReadonlyArray<string>) => {
  const topic = Topic.plain(name, (row: Record<string, unknown>) => keyText(key, row))
  namedTopics.add(topic)
  remember(topic.keyOf, key)
  return topic
}
const optionsOf: Readonly<Record<Shape["type"], ReadonlyArray<string>>> = {
  fixed: ["size", "every"],
  calendar: ["unit", "timeZone", "weekStartsOn"],
  session: ["gap"],
  global: []
}
const assertWindow = (name: string, shape: Shape, options: AnyOptions) => {
  const what = `window ${name}`
  const known = [...optionsOf[shape.type], "key", "aggregate", "grace", "emit", "publish", "shared", "tenant"]
  assertOptions(what, options, known, ["key", "aggregate"])
  assertFields(`${what}: \`key\``, options.key)
  assertOptions(`${what}: \`aggregate\``, options.aggregate, Object.keys(options.aggregate ?? {}))
  for (const [column, given] of Object.entries(options.aggregate) as ReadonlyArray<
    [string, Partial<Agg<never, unknown>>]
  >)
    if (!["count", "sum", "min", "max", "fold"].includes(given?.sql as string))
      refuse(what, `the aggregate \`${column}\` is ${shown(given)}; use one of \`Agg\`, as \`Agg.count\``)
}
/** Throws `InvalidDeclaration` if rows of the window can never be messages of the topic. */
const assertPublished = (name: string, shape: Shape, options: AnyOptions) => {
  const { aggregate, key, publish } = options
  if (publish === undefined || typeof publish === "string") return
  const what = `window ${name}: \`publish\``
  const topic = publish as Topic.Any
  if (topic?.kind !== "topic" || topic.types !== undefined)
    return refuse(
      what,
      `it is ${shown(topic?.name ?? topic)}; give the name of a topic, or one that \`Topic.records\` declares`
    )
  const columns = [...own[shape.type], ...Object.keys(key), ...Object.keys(aggregate)]
  const missing = Object.entries(topic.shapes?.[0]?.fields ?? {}).find(
    ([field, schema]) => !columns.includes(field) && !isOptional(schema)
  )
  if (missing !== undefined)
    refuse(
      what,
      `topic ${topic.name} has the field \`${missing[0]}\`, which rows of the window do not have; they have ${columns.join(", ")}`
    )
  const { keyField } = topic
  if (
    keyField !== undefined &&
    !Object.hasOwn(key, keyField) &&
    !(keyField === "window_size" && columns.includes(keyField))
  )
    refuse(
      what,
      `the key of topic ${topic.name} is \`${keyField}\`, which is not in the key of the window; use a column of the window's key (${Object.keys(key).join(", ")}), or add it there`
    )
}
const isOptional = (schema: Fields[string]): boolean =>
  (schema.ast as { readonly context?: { readonly isOptional?: boolean } }).context?.isOptional === true

const windowOf = (name: string, shape: Shape, options: AnyOptions) => {
  checkedRelationName("window", name)
  assertWindow(name, shape, options)
  const key = Object.keys(options.key)
  for (const column of [...key, ...Object.keys(options.aggregate)]) checkedColumn(`column of window ${name},`, column)
  assertSound(name, shape, options)
  assertPublished(name, shape, options)
  const { tenant } = options
  if (tenant !== undefined && !key.includes(tenant))
    refuse(
      `window ${name}: \`tenant\``,
      `it names ${shown(tenant)}, which is no column of the window's key (${key.join(", ")}); add the tenant of the events to \`key\``
    )
  return {
    kind: "window",
    name,
    shape,
    key,
    keyFields: options.key,
    aggregate: options.aggregate,
    graceMs: graceOf(name, options),
    emit: options.emit ?? "onUpdate",
    shared: options.shared ?? false,
    ...(tenant !== undefined && { tenant }),
    topic: typeof options.publish === "string" ? namedTopic(options.publish, key) : options.publish
  } as never // phantom `Row` and `add`
}
/** The five kinds of windows. Each throws `InvalidName`, `InvalidOption` or an `Error` if the declaration is not consistent. */
export const Window = {
  /**
   * Windows of one size, one after another, aligned to the epoch. Several sizes share one table.
   *
   * ```ts
   * const Activity = Window.tumbling("activity", {
   *   size: ["1 minute", "1 hour"], key: { user: Schema.String }, aggregate: { events: Agg.count }
   * })
   * ```
   */
  tumbling: <
    const Name extends string,
    const S extends OneOrMore<Size>,
    F extends Fields,
    A extends Aggs,
    const P extends Sink<RowOf<F, Sized<Label<One<S>>>, A>> | string = never
  >(
    name: Name,
    options: {
      /** The length of a window, as `"5 minutes"`, or several lengths. */
      readonly size: S
    } & WindowOptions<F, A, P>
  ): Window<Name, RowOf<F, Sized<Label<One<S>>>, A>, AddOf<F, A>, PublishedTo<P, RowOf<F, Sized<Label<One<S>>>, A>>> =>
    windowOf(name, { type: "fixed", spans: sizesOf(name, options.size) }, options),
  /**
   * Overlapping windows: one of length `size` begins at each multiple of `every`.
   *
   * ```ts
   * const LastHour = Window.hopping("last_hour", {
   *   size: "1 hour", every: "5 minutes", key: { sensor: Schema.String }, aggregate: { warmest: Agg.max }
   * })
   * ```
   */
  hopping: <
    const Name extends string,
    const S extends Size,
    F extends Fields,
    A extends Aggs,
    const P extends Sink<RowOf<F, Sized<Label<S>>, A>> | string = never
  >(
    name: Name,
    options: {
      /** The length of a window, as `"1 hour"`. */
      readonly size: S
      /** How far apart windows begin, as `"5 minutes"`. */
      readonly every: Duration.Input
    } & WindowOptions<F, A, P>
  ): Window<Name, RowOf<F, Sized<Label<S>>, A>, AddOf<F, A>, PublishedTo<P, RowOf<F, Sized<Label<S>>, A>>> =>
    windowOf(name, { type: "fixed", spans: sizesOf(name, options.size, options.every) }, options),
  /** Windows that last as long as the events of a key are at most `gap` apart. */
  session: <
    const Name extends string,
    F extends Fields,
    A extends Aggs,
    const P extends Sink<RowOf<F, Bounded, A>> | string = never
  >(
    name: Name,
    options: {
      /** How far apart the events of a session may be. */
      readonly gap: Duration.Input
    } & WindowOptions<F, A, P>
  ): Window<Name, RowOf<F, Bounded, A>, AddOf<F, A>, PublishedTo<P, RowOf<F, Bounded, A>>> =>
    windowOf(
      name,
      { type: "session", gapMs: checkedDuration(`window ${name}: gap`, options.gap, { least: 1 }) },
      options
    ),
  /**
   * Days, weeks, months or years of a time zone, with its changes of daylight saving time. Weeks begin on Monday, as in SQL's
   * `date_trunc('week', …)`, or as `weekStartsOn` says.
   *
   * ```ts
   * const Days = Window.calendar("days", {
   *   unit: ["day", "month"], timeZone: "Europe/Berlin", key: { shop: Schema.String }, aggregate: { cents: Agg.sum }
   * })
   * ```
   */
  calendar: <
    const Name extends string,
    const U extends OneOrMore<CalendarUnit>,
    F extends Fields,
    A extends Aggs,
    const P extends Sink<RowOf<F, Sized<One<U>>, A>> | string = never
  >(
    name: Name,
    options: CalendarOptions<U> & WindowOptions<F, A, P>
  ): Window<Name, RowOf<F, Sized<One<U>>, A>, AddOf<F, A>, PublishedTo<P, RowOf<F, Sized<One<U>>, A>>> =>
    windowOf(name, calendarOf(name, options), options),
  /**
   * One window over all time: running totals of a key. It never closes, and no event is late for it.
   *
   * ```ts
   * const Balances = Window.global("balances", { key: { account: Schema.String }, aggregate: { cents: Agg.sum } })
   * ```
   */
  global: <
    const Name extends string,
    F extends Fields,
    A extends Aggs,
    const P extends Sink<RowOf<F, {}, A>> | string = never
  >(
    name: Name,
    options: WindowOptions<F, A, P>
  ): Window<Name, RowOf<F, {}, A>, AddOf<F, A>, PublishedTo<P, RowOf<F, {}, A>>> =>
    windowOf(name, { type: "global" }, options)
}

/** A span of time that contains an event: its label, if it has one, and its bounds in epoch milliseconds; `end` is not included. */
export interface Span {
  readonly label: string | undefined
  readonly start: number
  readonly end: number
}

const everything: ReadonlyArray<Span> = [{ label: undefined, start: -Infinity, end: Infinity }]
/** The spans that contain a time, ordered by size as declared, then by start. For a session it is the instant itself. */
export const spansOf = (shape: Shape, time: number): ReadonlyArray<Span> => {
  switch (shape.type) {
    case "fixed": {
      const found: Array<Span> = []
      for (const { everyMs, label, sizeMs } of shape.spans) {
        // rounded down, so that times before 1970 are in windows like all others
        const last = Math.floor(time / everyMs) * everyMs
        for (let start = last - Math.floor((sizeMs - 1) / everyMs) * everyMs; start <= last; start += everyMs) {
          if (start > time - sizeMs) found.push({ label, start, end: start + sizeMs })
        }
      }
      return found
    }
    case "calendar":
      return shape.units.map((unit) => ({
        label: unit,
        ...calendarSpan(unit, shape.timeZone, shape.weekStart, time)
      }))
    case "session":
      return [{ label: undefined, start: time, end: time }]
    case "global":
      return everything
  }
}

/** Whether a window with this end is closed at this stream time: later events for it are late, and its row no longer changes. */
export const isClosed = (window: Window.Any, end: number, streamTime: number): boolean =>
  end + (window.shape.type === "session" ? window.shape.gapMs : 0) + window.graceMs <= streamTime

/** Whether the window has an aggregate whose rows must be read before they are changed. */
export const hasFold = (window: Window.Any): boolean => {
  // asked for every event
  let known = folds.get(window)
  if (known === undefined) {
    known = Object.values(window.aggregate).some(({ sql }) => sql === "fold")
    folds.set(window, known)
  }
  return known
}
const folds = new WeakMap<Window.Any, boolean>()
