// Copies of values that user functions may change in place. Pure.
import { maxDepth } from "../log/json.ts"

/**
 * A copy of arrays, plain objects, maps, sets and dates, and of what is in them. Objects of other classes are returned as they are. Throws an
 * `Error` if the value is nested deeper than any JSON may be.
 */
export const copied = <A>(value: A): A =>
  typeof value !== "object" || value === null ? value : (copyOf(value, new Map(), 0) as A)
/** `copies` has what is copied already, because a value may contain itself. */
const copyOf = (value: unknown, copies: Map<object, unknown>, depth: number): unknown => {
  if (typeof value !== "object" || value === null) return value
  if (copies.has(value)) return copies.get(value)
  if (depth > maxDepth) throw new Error(`a value is nested deeper than ${maxDepth} levels`)
  const copy = (inner: unknown) => copyOf(inner, copies, depth + 1)
  const remember = <A extends object>(empty: A): A => {
    copies.set(value, empty)
    return empty
  }
  if (Array.isArray(value)) {
    const array: Array<unknown> = remember([])
    for (const inner of value) array.push(copy(inner))
    return array
  }
  switch (Object.getPrototypeOf(value)) {
    case Object.prototype:
    case null: {
      const object = remember({})
      for (const [name, inner] of Object.entries(value))
        Object.defineProperty(object, name, {
          value: copy(inner),
          writable: true,
          enumerable: true,
          configurable: true
        })
      return object
    }
    case Map.prototype: {
      const map = remember(new Map<unknown, unknown>())
      for (const [key, inner] of value as Map<unknown, unknown>) map.set(copy(key), copy(inner))
      return map
    }
    case Set.prototype: {
      const set = remember(new Set<unknown>())
      for (const inner of value as Set<unknown>) set.add(copy(inner))
      return set
    }
    case Date.prototype:
      return remember(new Date(value as Date))
    default:
      return value
  }
}
