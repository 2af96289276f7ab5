// Where two JSON values differ. Pure.

/** A path at which two JSON values differ, such as `days[2].wh`, and their texts there; undefined if one of them has nothing there. */
export interface JsonDifference {
  readonly path: string
  readonly a: string | undefined
  readonly b: string | undefined
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null
const simple = /^[A-Za-z_][A-Za-z0-9_]*$/
const pathOf = (before: string, name: string, isIndex: boolean): string =>
  isIndex ? `${before}[${name}]` : simple.test(name) ? `${before}.${name}` : `${before}[${JSON.stringify(name)}]`

/** The paths at which two values differ, depth first. `undefined` stands for nothing at that path. */
export const jsonDifferences = function* (a: unknown, b: unknown, path = ""): Generator<JsonDifference> {
  if (isObject(a) && isObject(b) && Array.isArray(a) === Array.isArray(b)) {
    for (const name of new Set([...Object.keys(a), ...Object.keys(b)]))
      yield* jsonDifferences(
        Object.hasOwn(a, name) ? a[name] : undefined,
        Object.hasOwn(b, name) ? b[name] : undefined,
        pathOf(path, name, Array.isArray(a))
      )
    return
  }
  const [left, right] = [JSON.stringify(a), JSON.stringify(b)] as [string | undefined, string | undefined]
  if (left !== right) yield { path, a: left, b: right }
}
