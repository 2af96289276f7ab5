// Event types: a name, the fields of every version, and the upcasters that turn older versions into the newest. Pure.
import * as Schema from "effect/Schema"
import { shown } from "../text/text.ts"
import { assertFields, refuse } from "./declaration.ts"
import { remember, type Fields, type Simplify, type TypeOf } from "./fields.ts"
import { codec, type Codec } from "./json-codec.ts"
import { assertRedactions } from "./personal.ts"
import { checkedFunction } from "./user-code.ts"

/** An event type: its name, its newest fields, and how events of older versions become the newest one. */
export interface EventType<out Name extends string, in out Data extends object> {
  /** The name of the type, which every event has as `type`. */
  readonly type: Name
  /** The fields of every version, oldest first: version `n` is at index `n - 1`. */
  readonly versions: ReadonlyArray<{ readonly fields: Fields; readonly upcast: (previous: never) => unknown }>
  /** The type of an event, for `typeof`: there is no such value. */
  readonly Event: Simplify<{ readonly type: Name } & Data>
  /** Creates an event from the data of the newest version. */
  readonly make: (data: Data) => this["Event"]
  /**
   * Declares the next version. `from` turns the decoded data of the previous version into the new one; readers see the newest version only.
   * What it returns must fit `fields`, else the event cannot be read.
   *
   * ```ts
   * const Departed = Event.make("flight.departed", { at: Schema.Int })
   *   .upcast({ at: Schema.Int, gate: Schema.String }, ({ at }) => ({ at, gate: "unknown" }))
   * ```
   */
  readonly upcast: <F extends Fields>(fields: F, from: (previous: Data) => TypeOf<F>) => EventType<Name, TypeOf<F>>
  /**
   * Decodes a stored event of any version (default 1) into the newest. Fields that the version does not declare are left out. Throws a
   * `Schema.SchemaError` that names the field if the value does not fit, `UnknownVersion` if the version is not declared, what an upcaster throws,
   * and `UnfitUpcast` if an upcaster returns what does not fit.
   */
  readonly decode: (json: unknown, version?: number) => this["Event"]
  /** The JSON object of an event: the declared fields of the newest version, no others. */
  readonly encode: (event: never) => unknown
}
export declare namespace EventType {
  /** Any event type. */
  type Any = EventType<string, any> // `any`: Data is invariant
}

/** A stored event has a version that this application does not declare, because newer code wrote it. */
export class UnknownVersion extends Schema.TaggedError<UnknownVersion>()("UnknownVersion", {
  type: Schema.String,
  version: Schema.Unknown,
  newest: Schema.Int
}) {
  override get message() {
    return `event type ${this.type} has no version ${shown(this.version)}, the newest is ${this.newest}; deploy the code that declares it`
  }
}

/** An upcaster returned data that does not fit the version that it upcasts to. Nothing of an event with such data is processed or decided on. */
export class UnfitUpcast extends Error {
  /** Of the class, which dead letters name. */
  override readonly name = "UnfitUpcast"
  /** The version whose schema the data does not fit. */
  readonly version: number
  constructor(what: string, version: number, cause: unknown) {
    super(
      `${what} returned data that does not fit its schema: ${cause instanceof Error ? cause.message : shown(cause)}`,
      {
        cause
      }
    )
    this.version = version
  }
}

const failedUpcasters = new WeakMap<object, string>()
/** The upcaster that an error of `decode` came from, as `the upcaster of event type order.placed to version 2`; undefined if it came from none. */
export const upcasterOf = (error: unknown): string | undefined =>
  typeof error === "object" && error !== null ? failedUpcasters.get(error) : undefined
const upcasterText = (type: string, version: number) => `the upcaster of event type ${type} to version ${version}`

/** The same function, which throws what is wrong with its result. */
const checkedUpcaster = (type: string, version: number, upcast: (previous: never) => unknown) => {
  const what = upcasterText(type, version)
  const checked = checkedFunction(what, upcast, "write a synchronous function, which returns the new data")
  const upcaster = (previous: never) => {
    const data = checked(previous)
    if (typeof data === "object" && data !== null && !Array.isArray(data)) return data
    throw new Error(
      `${what} returned ${data === null ? "null" : typeof data}; it must return an object with the new data`
    )
  }
  return remember(upcaster, upcast)
}
const assertEvent = (type: unknown, fields: Fields) => {
  if (typeof type !== "string" || type === "")
    refuse("event type", `its name is ${shown(type)}; give a text, as "order.placed"`)
  assertFields(`event type ${String(type)}`, fields)
  if (Object.hasOwn(fields, "type"))
    refuse(
      `event type ${String(type)}`,
      "a field is called `type`, which every event has for the name of its type; rename the field"
    )
  assertRedactions(String(type), fields)
}
/** An upcaster's result with the fields of its version. Throws `UnfitUpcast`. */
const checkedUpcast = (what: string, version: number, { check }: Codec, event: object): object => {
  try {
    return check(event) as object
  } catch (error) {
    throw new UnfitUpcast(what, version, error)
  }
}
const eventType = (type: string, versions: EventType.Any["versions"]): EventType.Any => {
  assertEvent(type, versions.at(-1)!.fields)
  const codecs = versions.map(({ fields }) => codec(fields, type))
  /** The event in the version after `version`. */
  const upcasted = (version: number, event: object): object => {
    const what = upcasterText(type, version + 1)
    try {
      const data = versions[version]!.upcast(event as never) as object
      return checkedUpcast(what, version + 1, codecs[version]!, { ...data, type })
    } catch (thrown) {
      if (typeof thrown === "object" && thrown !== null) failedUpcasters.set(thrown, what)
      throw thrown
    }
  }
  return {
    type,
    versions,
    encode: codecs.at(-1)!.encode,
    make: (data: object) => ({ type, ...data }),
    upcast: (fields: Fields, upcast: (previous: never) => unknown) =>
      eventType(type, [...versions, { fields, upcast: checkedUpcaster(type, versions.length + 1, upcast) }]),
    decode: (json: unknown, version = 1) => {
      const stored = codecs[version - 1]
      if (stored === undefined) throw new UnknownVersion({ type, version, newest: versions.length })
      let event = stored.decode(json) as object
      for (let next = version; next < versions.length; next++) event = upcasted(next, event)
      return event
    }
  } as unknown as EventType.Any // phantom `Event`
}

/** Declares event types. */
export const Event = {
  /**
   * Declares version 1 of an event type. By convention its name is in the past tense, as `flight.departed`.
   *
   * ```ts
   * const Departed = Event.make("flight.departed", { flight: Schema.String, at: Schema.Int })
   * const event = Departed.make({ flight: "LX40", at: 1_700_000_000_000 })
   * ```
   */
  make: <const Name extends string, F extends Fields>(type: Name, fields: F): EventType<Name, TypeOf<F>> =>
    eventType(type, [{ fields, upcast: (data) => data }]) as EventType<Name, TypeOf<F>>
}
