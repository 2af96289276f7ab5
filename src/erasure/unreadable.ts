// Why an event with personal fields cannot be decoded: the path of the field, and nothing of its values, because dead letters store the reason. Pure.
import * as Schema from "effect/Schema"
import type * as SchemaAST from "effect/SchemaAST"
import * as SchemaIssue from "effect/SchemaIssue"
import { describeError, isOfClass, thrownAt } from "../dead-letter/event-failure.ts"
import { type EventType, UnfitUpcast, upcasterOf } from "../model/event.ts"
import type { Fields } from "../model/fields.ts"

/** An event with personal fields cannot be read. The message quotes none of its values, so that it may be stored and logged. */
export class UnreadablePersonal extends Error {
  /** `name`: that of the error which is the cause. */
  constructor(message: string, name = "Error") {
    super(message)
    this.name = name
  }
}

/** Whether an error is `UnreadablePersonal`. */
export const isUnreadablePersonal = (error: unknown): error is UnreadablePersonal =>
  isOfClass(error, UnreadablePersonal)

const isMissing = "missing"
/** Only the kind of an issue: messages that a schema was given may quote the value. */
const issuesOf = SchemaIssue.makeFormatterStandardSchemaV1({
  leafHook: ({ _tag }) => (_tag === "MissingKey" ? isMissing : "unfit"),
  checkHook: () => "unfit"
})

/** Adds the names of the fields that a schema declares, at any depth. */
const collect = (ast: SchemaAST.AST, names: Set<PropertyKey>, seen: Set<SchemaAST.AST>): void => {
  if (seen.has(ast)) return
  seen.add(ast)
  const into = (one: SchemaAST.AST) => collect(one, names, seen)
  for (const { to } of ast.encoding ?? []) into(to)
  if (ast._tag === "Objects") {
    for (const { name, type } of ast.propertySignatures) {
      names.add(name)
      into(type)
    }
    for (const { type } of ast.indexSignatures) into(type)
  } else if (ast._tag === "Arrays") [...ast.elements, ...ast.rest].forEach(into)
  else if (ast._tag === "Union") ast.types.forEach(into)
  else if (ast._tag === "Declaration") ast.typeParameters.forEach(into)
  else if (ast._tag === "Suspend") into(ast.thunk())
}
const known = new WeakMap<Fields, ReadonlySet<PropertyKey>>()
const declaredNames = (fields: Fields): ReadonlySet<PropertyKey> => {
  let names = known.get(fields)
  if (names === undefined) {
    const found = new Set<PropertyKey>(["type", ...Object.keys(fields)])
    for (const { ast } of Object.values(fields)) collect(ast as SchemaAST.AST, found, new Set())
    known.set(fields, (names = found))
  }
  return names
}
/** A path as `address.lines[2]`. A key that no schema declares is a value, which may be personal: it is written as `*`. */
const pathText = (path: ReadonlyArray<unknown>, names: ReadonlySet<PropertyKey>): string =>
  path
    .map((segment) => (typeof segment === "object" && segment !== null && "key" in segment ? segment.key : segment))
    .map((key) => (typeof key === "number" ? `[${key}]` : `.${names.has(key as PropertyKey) ? String(key) : "*"}`))
    .join("")
    .replace(/^\./, "")

/** Why a schema refuses a value, without the value; undefined if something else was thrown. */
const schemaProblem = (error: unknown, fields: Fields): string | undefined => {
  try {
    if (!Schema.isSchemaError(error)) return undefined
    const [issue] = issuesOf(error.issue).issues
    const path = pathText(issue?.path ?? [], declaredNames(fields))
    const what = path === "" ? "it" : `\`${path}\``
    return issue?.message === isMissing
      ? `${what} is missing`
      : `${what} does not fit the schema; its value is left out, because that could be personal data`
  } catch {
    return undefined
  }
}
/** What decoding an event with personal fields threw, as an error that names the path of the field and quotes no value. */
export const unreadablePersonal = (
  error: unknown,
  type: string,
  schemaVersion: number,
  eventTypes: ReadonlyMap<string, EventType.Any> | undefined
): UnreadablePersonal => {
  const { error: name, message } = describeError(error)
  const versions = eventTypes?.get(type)?.versions
  const fields = versions?.[schemaVersion - 1]?.fields
  // the type or the version is not declared: the message has nothing else of the event
  if (fields === undefined) return new UnreadablePersonal(message, name)
  const cannot = `version ${schemaVersion} of event type ${type} cannot be`
  if (isOfClass(error, UnfitUpcast)) {
    const reason = schemaProblem(error.cause, versions?.[error.version - 1]?.fields ?? fields)
    return new UnreadablePersonal(
      `${cannot} upcast: ${upcasterOf(error)} returned data in which ${reason ?? "a field does not fit the schema"}`,
      name
    )
  }
  const problem = schemaProblem(error, fields)
  if (problem !== undefined) return new UnreadablePersonal(`${cannot} decoded: ${problem}`, name)
  const at = thrownAt(error)
  const where = at === undefined ? "" : ` at ${at}`
  return new UnreadablePersonal(
    `${cannot} decoded or upcast: ${name} was thrown${where}; its message is left out, because that could quote personal data`,
    name
  )
}
