// The filters of dead letters that routes have in common.
import { kindNames } from "../../system/dead-letters/dead-letters.ts"
import { whole } from "../http/parameters.ts"
import { momentOf, namesOf } from "./parts.ts"
import { described, integer, list, object, text } from "../http/json-schema.ts"

/** The parameters of a list, and the fields of a decision, that say which dead letters are meant. */
export const filterNames = [
  "kind",
  "projection",
  "build",
  "subscription",
  "target",
  "bridge",
  "rule",
  "topic",
  "key",
  "error",
  "since"
] as const
/** What they are in a request. */
export type Filters = Readonly<Partial<Record<(typeof filterNames)[number], string>>>
/** Their schemas. */
export const filterProperties = Object.fromEntries(
  filterNames.map((name) => [
    name,
    name === "kind"
      ? described(text, `separated by commas: ${kindNames.join(", ")}`)
      : name === "since"
        ? described(text, "only what failed since then: a date, epoch milliseconds, or a duration before now")
        : name === "build"
          ? described(integer, "the number of the projection's build; the projection has to be named, too")
          : text
  ])
)
/** The filters as `selectionOf` and `bulkSelectionOf` take them. Throws a `Problem` 400 for a time that is none. */
export const requestOf = ({ build, kind, since, ...filters }: Filters) => ({
  ...filters,
  build: whole(build, "build", { least: 1, most: 2 ** 31 - 1, otherwise: undefined }),
  kinds: namesOf(kind),
  since: momentOf(since, "since")
})

/** The schema of the kinds that an answer does not have. */
export const leftOut = described(
  list(object({ kind: text, reason: text })),
  "kinds that are missing because what has them does not answer"
)
