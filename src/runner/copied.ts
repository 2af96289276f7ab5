// Copies of values that user functions may change in place. Pure.

/** A copy of arrays, plain objects, maps, sets and dates, and of what is in them. Objects of other classes are returned as they are. */
export const copied = <A>(value: A): A => copyOf(value) as A
const copyOf = (value: unknown): unknown => {
  if (typeof value !== "object" || value === null) return value
  if (Array.isArray(value)) return value.map(copyOf)
  switch (Object.getPrototypeOf(value)) {
    case Object.prototype:
    case null:
      return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, copyOf(inner)]))
    case Map.prototype:
      return new Map([...(value as Map<unknown, unknown>)].map(([key, inner]) => [copyOf(key), copyOf(inner)]))
    case Set.prototype:
      return new Set([...(value as Set<unknown>)].map(copyOf))
    case Date.prototype:
      return new Date(value as Date)
    default:
      return value
  }
}
