// Which dead letters a list, a retry or a discard is about: checks what was asked for, and finds the kinds that may have it.
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import { type DeadLetterKind, kindFilters, kindNames, kinds } from "./kinds.ts"
import { type DeadLetterFilter, type DeadLetterStatus, deadLetterStatuses, openStatuses } from "./source.ts"

/** What is asked for, not checked yet. Everything that is undefined, and an empty list of ids, matches all dead letters. */
export interface DeadLetterRequest extends Partial<Omit<DeadLetterFilter, "statuses" | "limit">> {
  /** Ids as lists have them. */
  readonly ids?: ReadonlyArray<string>
  readonly kinds?: ReadonlyArray<string> | undefined
  /** Default: the open ones. */
  readonly statuses?: ReadonlyArray<string> | undefined
  /** At most this many of each kind. */
  readonly limit: number
}
/** A request that makes sense, from `selectionOf` or `bulkSelectionOf`. */
export interface DeadLetterSelection {
  readonly kinds: ReadonlyArray<DeadLetterKind>
  /** Undefined: not limited by ids. */
  readonly ids: ReadonlyArray<string> | undefined
  readonly filter: DeadLetterFilter
  /** Whether an id, a kind or a filter of a kind is given. */
  readonly isAskedFor: boolean
}
/** A request makes no sense. `field` is what is wrong with it; `bulk`: it would select all dead letters without saying so. */
export class InvalidSelection extends Data.TaggedError("InvalidSelection")<{
  readonly field: "ids" | "kinds" | "statuses" | "limit" | "build" | "bulk"
  readonly message: string
}> {}

const isKind = (name: string): name is DeadLetterKind => kindNames.some((kind) => kind === name)
const isStatus = (name: string): name is DeadLetterStatus => deadLetterStatuses.some((status) => status === name)
const refuse = (field: InvalidSelection["field"], message: string) => new InvalidSelection({ field, message })

const problemOf = ({ build, ids = [], kinds: names = [], limit, projection, statuses = [] }: DeadLetterRequest) => {
  if (limit < 1) return refuse("limit", `the limit is ${limit}; it must be at least 1`)
  if (build !== undefined && projection === undefined)
    return refuse("build", `build ${build} of which projection? Each projection counts its own builds`)
  const unknownKind = names.find((name) => !isKind(name))
  if (unknownKind !== undefined) return refuse("kinds", `'${unknownKind}' is not a kind of dead letters`)
  const unknownStatus = statuses.find((name) => !isStatus(name))
  if (unknownStatus !== undefined) return refuse("statuses", `'${unknownStatus}' is not a status of dead letters`)
  const unknownId = ids.find((id) => !kindNames.some((name) => kinds[name].idPattern.test(id)))
  return unknownId === undefined ? undefined : refuse("ids", `'${unknownId}' is not an id of a dead letter`)
}

/** Checks a request. */
export const selectionOf = Effect.fnUntraced(function* (
  request: DeadLetterRequest
): Effect.fn.Return<DeadLetterSelection, InvalidSelection> {
  const problem = problemOf(request)
  if (problem !== undefined) return yield* problem
  const { bridge, build, error, ids = [], key, kinds: names, limit, projection, rule, since, subscription } = request
  const { target, topic, until } = request
  const statuses = (request.statuses ?? openStatuses).filter(isStatus)
  const ofKind = { projection, build, subscription, target, bridge, rule }
  const filter = { ...ofKind, topic, key, error, since, until, statuses, limit }
  const given = kindFilters.filter((name) => request[name] !== undefined)
  const mayHave = (kind: DeadLetterKind) => {
    const { filters, idPattern }: { readonly filters: ReadonlyArray<string>; readonly idPattern: RegExp } = kinds[kind]
    return (
      (names === undefined || names.includes(kind)) &&
      given.every((name) => filters.includes(name)) &&
      (ids.length === 0 || ids.some((id) => idPattern.test(id)))
    )
  }
  return {
    kinds: kindNames.filter(mayHave),
    ids: ids.length === 0 ? undefined : ids,
    filter,
    isAskedFor: ids.length > 0 || names !== undefined || given.length > 0
  }
})

/**
 * Checks a request to retry or discard the open dead letters that match. It must have an id or a filter, or `all`, so that none is decided about by
 * mistake. Statuses, if there are some, are of open ones.
 */
export const bulkSelectionOf = Effect.fnUntraced(function* ({
  all,
  ...request
}: DeadLetterRequest & { readonly all: boolean }): Effect.fn.Return<DeadLetterSelection, InvalidSelection> {
  const { error, ids = [], key, kinds: names, since, statuses, topic } = request
  const given = [error, key, names, since, statuses, topic, ...kindFilters.map((name) => request[name])]
  if (!all && ids.length === 0 && given.every((one) => one === undefined))
    return yield* refuse("bulk", "which dead letters?")
  const decided = statuses?.find((name) => isStatus(name) && !openStatuses.some((open) => open === name))
  if (decided !== undefined)
    return yield* refuse("statuses", `dead letters that are ${decided} are decided about: only open ones can be`)
  return yield* selectionOf(request)
})
