// Personal fields of events: which fields hold personal data of the event's subject, and what replaces their values after an erasure. Pure.
import * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"
import { shown } from "../text/text.ts"
import { refuse } from "./declaration.ts"
import type { Fields } from "./fields.ts"

const annotation = "millrace/personal"
interface Redaction {
  /** The JSON of the value that a reader gets once the data is erased. */
  readonly redacted: unknown
  /** What is wrong with it: the event type that has the field refuses it, because it can name both. */
  readonly problem?: string
}
const redactedText = "[erased]"

/** The JSON of the value that stands for an erased one, or what is wrong with it. */
const redactionOf = (schema: Schema.Constraint, given: { readonly redacted?: unknown }): Redaction => {
  const json = Schema.toCodecJson(schema as Schema.Codec<unknown>)
  if (Object.hasOwn(given, "redacted")) {
    try {
      return { redacted: Schema.encodeUnknownSync(json)(given.redacted) }
    } catch {
      return unfit(`\`redacted\` is ${shown(given.redacted)}, which does not fit the schema of the field`)
    }
  }
  const candidate = [null, redactedText].find((value) => {
    try {
      Schema.decodeUnknownSync(json)(value)
      return true
    } catch {
      return false
    }
  })
  if (candidate !== undefined) return { redacted: candidate }
  return unfit(
    `neither null nor ${JSON.stringify(redactedText)} fits the field; say what replaces an erased value, as \`Personal(Schema.Int, { redacted: 0 })\``
  )
}
const unfit = (problem: string): Redaction => ({ redacted: null, problem })

/**
 * Marks a field of an event type of an aggregate as personal data of the event's `subject`. The event store encrypts such fields with a key
 * of the subject, so that `millrace erase SUBJECT` makes them unreadable wherever they were copied to. Readers then get `redacted`: null or
 * `"[erased]"`, whichever fits, unless it is given. `Event.make` throws `InvalidDeclaration` if no value fits.
 *
 * ```ts
 * const Registered = Event.make("customer.registered", {
 *   customer_id: Schema.String, email: Personal(Schema.String), born: Personal(Schema.Int, { redacted: 1900 })
 * })
 * ```
 */
export const Personal = <S extends Schema.Constraint>(
  schema: S,
  options: {
    /** What readers get in place of an erased value. Default: null, or `"[erased]"` where null does not fit. */
    readonly redacted?: S["Type"]
  } = {}
): S =>
  (schema as unknown as { readonly annotate: (annotations: object) => S }).annotate({
    [annotation]: redactionOf(schema, options)
  })

/** The redaction of a personal field; undefined for another field. An optional field may wrap the schema that was marked. */
const markOf = (schema: Fields[string]): Redaction | undefined => {
  const { ast } = schema as unknown as { readonly ast: SchemaAST.AST }
  return SchemaAST.resolve(ast)?.[annotation] as Redaction | undefined
}

/** Throws `InvalidDeclaration`, which names the event type and the field, if nothing can replace the erased value of a personal field. */
export const assertRedactions = (type: string, fields: Fields): void => {
  for (const [name, schema] of Object.entries(fields)) {
    const problem = markOf(schema)?.problem
    if (problem !== undefined) refuse(`event type ${type}: \`${name}\``, `it is personal, and ${problem}`)
  }
}

/** What is read of an event type. */
interface VersionedEvent {
  readonly type: string
  readonly versions: ReadonlyArray<{ readonly fields: Fields }>
}
/** The personal fields of one version of an event type, by name, each with the JSON of its redacted value. */
export type PersonalFields = ReadonlyMap<string, unknown>
const known = new WeakMap<Fields, PersonalFields>()
/** The personal fields of the fields of an event. */
export const personalFields = (fields: Fields): PersonalFields => {
  let found = known.get(fields)
  if (found === undefined) {
    found = new Map(
      Object.entries(fields).flatMap(([name, schema]) => {
        const mark = markOf(schema)
        return mark === undefined ? [] : [[name, mark.redacted] as const]
      })
    )
    known.set(fields, found)
  }
  return found
}
/** Whether any version of an event type has personal fields. */
export const hasPersonalFields = ({ versions }: VersionedEvent): boolean =>
  versions.some(({ fields }) => personalFields(fields).size > 0)
/** The personal fields of a version of an event type among several; none for a type or version that is not declared. */
export const personalFieldsOf = (
  eventTypes: ReadonlyMap<string, VersionedEvent> | undefined,
  type: string,
  version: number
): PersonalFields => {
  const fields = eventTypes?.get(type)?.versions[version - 1]?.fields
  return fields === undefined ? none : personalFields(fields)
}
const none: PersonalFields = new Map()

/** Throws `InvalidDeclaration` if personal fields cannot be protected: nobody owns them, or they have to be readable. */
export const assertPersonal = (
  what: string,
  events: ReadonlyArray<VersionedEvent>,
  { eventTime, id, subject }: { readonly eventTime?: unknown; readonly id?: unknown; readonly subject?: unknown }
): void => {
  for (const event of events) {
    for (const { fields } of event.versions) {
      for (const name of personalFields(fields).keys()) {
        const field = `event type ${event.type}: \`${name}\``
        if (subject === undefined)
          refuse(what, `${field} is personal, but the aggregate has no \`subject\`, which says whose data it is`)
        if (name === id)
          refuse(
            what,
            `${field} is personal and holds the stream's id, which is never encrypted; use an id without meaning`
          )
        if (name === eventTime)
          refuse(what, `${field} is personal and is the event time, which is never encrypted; use another field`)
      }
    }
  }
}
