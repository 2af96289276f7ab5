// Refuses declarations of aggregates that can never work, with the option that is wrong and the remedy. Pure.
import * as Schema from "effect/Schema"
import { shown } from "../text/text.ts"
import { assertFields, assertOptions, assertSelected, canBeText, refuse, type ValueShape } from "./declaration.ts"
import type { EventType } from "./event.ts"
import type { Fields } from "./fields.ts"
import { checkedCount } from "./options.ts"
import { isTopicName } from "./topic.ts"

const required = ["name", "events", "commands", "state", "initial", "evolve", "decide"]
const optional = ["rejections", "id", "version", "eventTime", "tags", "subject", "partitions", "snapshot"]

/** What is checked before anything of a declaration is used. */
interface UncheckedAggregate {
  readonly name: string
  readonly events: ReadonlyArray<EventType.Any>
  readonly commands: Readonly<Record<string, Fields>>
  readonly state: Schema.Constraint
  readonly initial: unknown
  readonly evolve: object
  readonly decide: object
  readonly rejections?: ReadonlyArray<unknown> | undefined
  readonly id?: string | undefined
  readonly version?: number | undefined
  readonly eventTime?: unknown
  readonly tags?: Readonly<Record<string, unknown>> | undefined
  readonly partitions?: number | undefined
  readonly snapshot?: { readonly every: number } | false | undefined
}
const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** Throws `InvalidDeclaration` unless an object has one function for each name, and no others. */
const assertNames = (what: string, functions: unknown, names: ReadonlyArray<string>, noun: string) => {
  if (!isObject(functions))
    return refuse(what, `it is ${shown(functions)}; give an object with one function for each ${noun}`)
  const missing = names.find((name) => functions[name] === undefined)
  if (missing !== undefined) refuse(what, `it has no function for the ${noun} ${missing}; add one`)
  const unknown = Object.keys(functions).find((name) => !names.includes(name))
  if (unknown !== undefined)
    refuse(
      what,
      `it has a function for \`${unknown}\`, which is no ${noun} of the aggregate; known are ${names.join(", ")}`
    )
}
const commandName = /^[a-zA-Z0-9._-]{1,100}$/
const assertCommands = (what: string, commands: unknown) => {
  if (!isObject(commands))
    return refuse(`${what}: \`commands\``, `it is ${shown(commands)}; give an object with the fields of each command`)
  for (const [name, fields] of Object.entries(commands)) {
    if (!commandName.test(name))
      refuse(
        `${what}: \`commands\``,
        `the name ${JSON.stringify(name)} is not allowed; use at most 100 letters, digits, dots, _ and -`
      )
    assertFields(`${what}: command ${name}`, fields)
    if (Object.hasOwn(fields as object, "type"))
      refuse(
        `${what}: command ${name}`,
        "a field is called `type`, which every command has for its name; rename the field"
      )
  }
}
const assertId = (what: string, id: unknown, shapes: ReadonlyArray<ValueShape>) => {
  if (id === undefined) return
  if (typeof id !== "string") refuse(`${what}: \`id\``, `it is ${shown(id)}; give the name of a field`)
  for (const { fields, name } of shapes) {
    const field = Object.hasOwn(fields, id as string) ? fields[id as string] : undefined
    if (field === undefined)
      return refuse(
        `${what}: \`id\``,
        `${name} has no field \`${String(id)}\`; every event and command must have it, because it holds the stream's id`
      )
    if (!canBeText(field))
      refuse(`${what}: \`id\``, `the field \`${String(id)}\` of ${name} is never a text; name a field of texts`)
  }
}
const assertRejections = (what: string, rejections: unknown) => {
  if (rejections === undefined) return
  if (!Array.isArray(rejections))
    return refuse(`${what}: \`rejections\``, `it is ${shown(rejections)}; list classes, as \`[CaseTaken]\``)
  for (const [i, rejection] of rejections.entries())
    if (!Schema.isSchema(rejection) || typeof rejection !== "function")
      refuse(
        `${what}: \`rejections\``,
        `its element ${i} is ${shown(rejection)}; list the class of a Schema.TaggedError, not an instance of it`
      )
}
const tagName = /^[a-zA-Z0-9_-]{1,50}$/
const assertTags = (what: string, tags: unknown) => {
  if (tags === undefined) return
  if (!isObject(tags))
    return refuse(
      `${what}: \`tags\``,
      `it is ${shown(tags)}; give an object, as \`{ course: (event) => event.course_id }\``
    )
  const name = Object.keys(tags).find((tag) => !tagName.test(tag))
  if (name !== undefined)
    refuse(
      `${what}: \`tags\``,
      `the name ${JSON.stringify(name)} is not allowed; use at most 50 letters, digits, _ and -`
    )
}
const assertSnapshot = (what: string, snapshot: unknown) => {
  if (snapshot === undefined || snapshot === false) return
  assertOptions(`${what}: \`snapshot\``, snapshot, ["every"], ["every"])
  checkedCount(`${what}: snapshot.every`, (snapshot as { readonly every: number }).every, { least: 1 })
}

/** The shapes of an aggregate's commands, by which errors name them. */
export const commandShapes = (commands: Readonly<Record<string, Fields>>): ReadonlyArray<ValueShape> =>
  Object.entries(commands).map(([name, fields]) => ({ name: `command ${name}`, fields }))

/** Throws `InvalidDeclaration` or `InvalidOption` for what can be checked without the events' codec. */
export const assertAggregate = (options: UncheckedAggregate): void => {
  const name = (options as Partial<UncheckedAggregate> | undefined)?.name
  const what = `aggregate ${String(name)}`
  assertOptions(
    what,
    options,
    [...required, ...optional],
    required.filter((option) => option !== "initial")
  )
  if (options.initial === undefined) refuse(what, "`initial` is missing; declare it")
  if (!isTopicName(name))
    refuse(`aggregate ${shown(name)}`, "the name is not allowed; use at most 249 letters, digits, dots, _ and -")
  if (!Array.isArray(options.events))
    refuse(`${what}: \`events\``, `it is ${shown(options.events)}; list event types, as \`Event.make\` declares them`)
  for (const [i, event] of (options.events as ReadonlyArray<Partial<EventType.Any> | undefined>).entries())
    if (typeof event?.type !== "string" || event.versions === undefined)
      refuse(
        `${what}: \`events\``,
        `its element ${i} is ${shown(event)}, which is no event type; use what \`Event.make\` declares`
      )
  assertCommands(what, options.commands)
  if (!Schema.isSchema(options.state))
    refuse(
      `${what}: \`state\``,
      `it is ${shown(options.state)}, which is no schema; use one, as \`Schema.Struct({ … })\``
    )
  const types = options.events.map(({ type }) => type)
  assertNames(`${what}: \`evolve\``, options.evolve, types, "event type")
  assertNames(`${what}: \`decide\``, options.decide, Object.keys(options.commands), "command")
  if (options.version !== undefined) checkedCount(`${what}: version`, options.version, { least: 1 })
  if (options.partitions !== undefined) checkedCount(`${what}: partitions`, options.partitions, { least: 1 })
  assertRejections(what, options.rejections)
  assertTags(what, options.tags)
  assertSnapshot(what, options.snapshot)
}
/** Throws `InvalidDeclaration` if `id` or `eventTime` name fields that events or commands do not have, or that hold something else. */
export const assertAggregateFields = (
  { commands, eventTime, id, name }: UncheckedAggregate,
  shapes: ReadonlyArray<ValueShape>
): void => {
  assertId(`aggregate ${name}`, id, [...shapes, ...commandShapes(commands)])
  assertSelected(`aggregate ${name}: \`eventTime\``, eventTime, shapes, "number")
}
