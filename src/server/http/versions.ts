// Finds the version that a value without one was written with. An invalid event of a new version is never accepted as an old one.
import * as Schema from "effect/Schema"
import type { EventType } from "../../model/event.ts"

interface Shape {
  readonly required: ReadonlyArray<string>
  /** Fields that only newer versions declare. */
  readonly newer: ReadonlyArray<string>
}

/** A decoded value, and the version that it fits. */
export interface Versioned {
  readonly value: unknown
  readonly version: number
}

/** The versions of one event type. */
export class Versions {
  readonly eventType: EventType.Any
  readonly newest: number
  /** Whether the newest version declares a field `schema_version` of its own: then that field is data. */
  readonly ownsVersionField: boolean
  readonly #shapes: ReadonlyArray<Shape>

  constructor(eventType: EventType.Any) {
    this.eventType = eventType
    this.newest = eventType.versions.length
    const fields = eventType.versions.map((version) => version.fields)
    this.ownsVersionField = fields.at(-1)?.["schema_version"] !== undefined
    this.#shapes = fields.map((own, index) => ({
      required: Object.keys(own).filter((name) => !isOptional(own[name]!)),
      newer: [...new Set(fields.slice(index + 1).flatMap((later) => Object.keys(later)))].filter(
        (name) => !(name in own)
      )
    }))
  }

  /**
   * Decodes a value without a version by the newest version that fits. An older version is tried only if the value has no field that only
   * newer ones declare. Throws the `Schema.SchemaError` of the newest version that could be meant.
   */
  read(json: object): Versioned {
    let failure: unknown
    for (let version = this.newest; version >= 1; version--) {
      if (!this.#mayBe(json, version)) continue
      try {
        return { value: this.eventType.decode(json, version), version }
      } catch (error) {
        failure ??= error
      }
    }
    if (failure !== undefined) throw failure
    return { value: this.eventType.decode(json, this.newest), version: this.newest }
  }

  // Cheap enough for every event; a decode that fails costs ten times as much as one that succeeds.
  #mayBe(json: object, version: number): boolean {
    const { newer, required } = this.#shapes[version - 1]!
    for (const name of required) if (!Object.hasOwn(json, name)) return false
    for (const name of newer) if (Object.hasOwn(json, name)) return false
    return true
  }
}

const isOptional = (schema: Schema.Constraint): boolean =>
  Schema.toEncoded(schema as Schema.Top).ast.context?.isOptional === true
