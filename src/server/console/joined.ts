// Joins modules into one, so that a page is there after one request in place of twenty. Pure.

/** A module without its imports and exports: the body of a function that returns what it exports. */
interface Body {
  readonly text: string
  readonly imports: ReadonlyArray<string>
  readonly exports: ReadonlyArray<string>
}

const resolved = (specifier: string, path: string): string =>
  specifier.startsWith(".") ? new URL(specifier, `http://console${path}`).pathname : specifier
/** `a, b as c` as the pattern `a, b: c`. */
const patternOf = (names: string): string => names.replaceAll(/\s+as\s+/g, ": ")
/** The names in `a, b as c` by which others know them. */
const namesIn = (names: string): ReadonlyArray<string> =>
  names
    .split(",")
    .map((name) =>
      name
        .trim()
        .split(/\s+as\s+/)
        .at(-1)!
    )
    .filter((name) => name !== "")
const from = (target: string): string => `$modules[${JSON.stringify(target)}]`

/**
 * The body of a module at a path. Its imports are of names or a default, and its exports begin a line: `export const`, `export class`, `export default` or
 * `export { … } from`. What it loads later is one of `others`, and then there already, or a module of its own.
 */
const bodyOf = (path: string, source: string, others: ReadonlySet<string>): Body => {
  const imports: Array<string> = []
  const exported: Array<string> = []
  const take = (specifier: string): string => {
    const target = resolved(specifier, path)
    imports.push(target)
    return from(target)
  }
  const text = source
    .replaceAll(/^import\s+(?:([\w$]+)|\{([^}]*)\})\s+from\s+"([^"]+)"$/gm, (_, whole, names, specifier: string) =>
      whole === undefined
        ? `const {${patternOf(names as string)}} = ${take(specifier)}`
        : `const { default: ${whole as string} } = ${take(specifier)}`
    )
    .replaceAll(/^export\s+\{([^}]*)\}\s+from\s+"([^"]+)"$/gm, (_, names: string, specifier: string) => {
      exported.push(...namesIn(names))
      return `const {${patternOf(names)}} = ${take(specifier)}`
    })
    .replaceAll(/^export (const|class) ([\w$]+)/gm, (_, kind: string, name: string) => {
      exported.push(name)
      return `${kind} ${name}`
    })
    .replaceAll(/^export default /gm, () => {
      exported.push("default")
      return "const $default = "
    })
    .replaceAll(/\bimport\("([^"]+)"\)/g, (whole, specifier: string) => {
      const target = resolved(specifier, path)
      return others.has(target) ? `Promise.resolve(${from(target)})` : whole
    })
  return { text, imports, exports: exported }
}

/**
 * The modules with those that `entry` and the `first` ones import, and these themselves, in one file at the path of `entry`. At their own paths are then
 * modules that export what is in that file, so that others share them. What is no path, such as `preact`, is imported by the file.
 */
export const joined = (
  sources: ReadonlyMap<string, string>,
  entry: string,
  first: ReadonlyArray<string>
): ReadonlyMap<string, string> => {
  const order = new Map<string, Body>()
  const libraries = new Set<string>()
  const reach = (path: string): void => {
    if (order.has(path) || libraries.has(path)) return
    const source = sources.get(path)
    if (source === undefined) return void libraries.add(path)
    const body = bodyOf(path, source, new Set(first))
    for (const one of body.imports) reach(one)
    order.set(path, body)
  }
  for (const path of [...first, entry]) reach(path)
  const names = [...libraries]
  const parts = [...order].map(([path, { exports: own, text }]) => {
    const returned = own.map((name) => (name === "default" ? "default: $default" : name)).join(", ")
    return `${from(path)} = (() => {\n${text}\nreturn { ${returned} }\n})()`
  })
  const file = [
    ...names.map((name, i) => `import * as $${i} from ${JSON.stringify(name)}`),
    `export const $modules = { ${names.map((name, i) => `${JSON.stringify(name)}: $${i}`).join(", ")} }`,
    ...parts
  ].join("\n")
  const shared = [...order].map(([path, { exports: own }]) => {
    const named = own.filter((name) => name !== "default")
    const rest = own.includes("default") ? `export default ${from(path)}.default\n` : ""
    return [
      path,
      `import { $modules } from ${JSON.stringify(entry)}\nexport const { ${named.join(", ")} } = ${from(path)}\n${rest}`
    ] as const
  })
  return new Map([...sources, ...shared, [entry, `${file}\n`]])
}
