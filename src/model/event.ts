// A type of event: its name, its newest shape, and how stored older versions become the newest. It holds no events.
import * as Schema from "effect/Schema"
import type { Fields, Simplify, TypeOf } from "./fields.ts"
import { codec } from "./json-codec.ts"

/** A type of event: its name, its newest shape, and how older versions become the newest. */
export interface EventType<out Name extends string, in out Data extends object> {
  readonly type: Name
  /** Every version's shape, the oldest first; version `n` stands at `n - 1`. */
  readonly versions: ReadonlyArray<{ readonly fields: Fields; readonly upcast: (previous: never) => unknown }>
  readonly Event: Simplify<{ readonly type: Name } & Data>
  /** The event value; data is what the newest version declares. */
  readonly make: (data: Data) => this["Event"]
  /** Declares the next version. `from` gets the previous one decoded; readers only ever see the newest. */
  readonly upcast: <F extends Fields>(fields: F, from: (previous: Data) => TypeOf<F>) => EventType<Name, TypeOf<F>>
  /**
   * Reads a stored event of any version; one that says none is of version 1. Fields that the version does not declare are left out. Throws a
   * `Schema.SchemaError` that names the field where the value does not fit, an `UnknownVersion` where no such version was declared.
   */
  readonly decode: (json: unknown, version?: number) => this["Event"]
  /** The JSON object of an event of the newest version: declared fields only. */
  readonly encode: (event: never) => unknown
}
export declare namespace EventType {
  type Any = EventType<string, any> // `any`: Data is invariant
}

/** An event was stored with a version that this application does not declare: it was written by newer code. */
export class UnknownVersion extends Schema.TaggedError<UnknownVersion>()("UnknownVersion", {
  type: Schema.String,
  version: Schema.Unknown,
  newest: Schema.Int
}) {
  override get message() {
    return `${this.type} has no version ${String(this.version)}, the newest is ${this.newest}; deploy the code that declares it`
  }
}

const eventType = (type: string, versions: EventType.Any["versions"]): EventType.Any => {
  const codecs = versions.map(({ fields }) => codec(fields, type))
  return {
    type,
    versions,
    encode: codecs.at(-1)!.encode,
    make: (data: object) => ({ type, ...data }),
    upcast: (fields: Fields, upcast: never) => eventType(type, [...versions, { fields, upcast }]),
    decode: (json: unknown, version = 1) => {
      const stored = codecs[version - 1]
      if (stored === undefined) throw new UnknownVersion({ type, version, newest: versions.length })
      let event = stored.decode(json) as object
      for (let next = version; next < versions.length; next++) {
        event = { type, ...(versions[next]!.upcast(event as never) as object) }
      }
      return event
    }
  } as unknown as EventType.Any // phantom `Event`
}

export const Event = {
  /** Version 1 of an event type. Its name is in the past tense, as `flight.departed`. */
  make: <const Name extends string, F extends Fields>(type: Name, fields: F): EventType<Name, TypeOf<F>> =>
    eventType(type, [{ fields, upcast: (data) => data }]) as EventType<Name, TypeOf<F>>
}
