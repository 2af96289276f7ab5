// Writes a new application from the templates of the package. It needs nothing but built-in modules, for `create-millrace` ships it, too.
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { basename, dirname, join, relative, resolve } from "node:path"
import { fileURLToPath } from "node:url"

/** What to create. */
export interface NewApplication {
  /** The folder to create, from the working directory. */
  readonly directory: string
  /** Default: the name of the folder, in the form that npm accepts. */
  readonly name?: string | undefined
  /** Whether it runs on Deno instead of Node. */
  readonly deno: boolean
  /** The version of Millrace that it depends on, or a newer compatible one. */
  readonly version: string
}
/** What was created: the application's name, its folder, and the paths of its files within that. */
export interface CreatedApplication {
  readonly name: string
  readonly path: string
  readonly files: ReadonlyArray<string>
}

/** An application cannot be created as it was asked for. `try` says what to do. */
export class CannotCreate extends Error {
  override readonly name = "CannotCreate"
  readonly try: string
  constructor(message: string, advice: string) {
    super(message)
    this.try = advice
  }
}

const templates = fileURLToPath(new URL("../../templates", import.meta.url))
/** The name of the application in the templates. */
const templateName = "my-app"
/** What a folder may have before an application is created in it. */
const harmless = /^(\.git|\.gitattributes|\.github|\.idea|\.vscode|\.DS_Store|LICENSE(\.\w+)?)$/
/** Packages that the application depends on: npm refuses to install a package into itself. */
const taken = new Set(["millrace", "effect", "typescript", "vitest", "node_modules", "favicon.ico"])

/**
 * Creates the folder of an application and its files. Throws `CannotCreate` and changes nothing if the folder has files already, or the name
 * is not one that npm accepts.
 */
export const createApplication = (wanted: NewApplication): CreatedApplication => {
  const path = resolve(wanted.directory)
  const name = wanted.name === undefined ? nameFrom(path) : checkedName(wanted.name)
  assertFree(path, wanted.directory)
  const folders = wanted.deno ? [join(templates, "app"), join(templates, "deno")] : [join(templates, "app")]
  const sources = new Map(folders.flatMap((folder) => filesOf(folder).map((file) => [relative(folder, file), file])))
  const files: Array<string> = []
  for (const [file, source] of sources) {
    const target = targetOf(file)
    if (wanted.deno && onNodeOnly.has(target)) continue
    const text = textOf(readFileSync(source, "utf8"), target, { ...wanted, name })
    mkdirSync(dirname(join(path, target)), { recursive: true })
    // fails if a file has appeared meanwhile
    writeFileSync(join(path, target), text, { flag: "wx" })
    files.push(target)
  }
  return { name, path, files: files.toSorted() }
}

/** Names of files that npm would read or leave out of the package begin with `_` in the templates. */
const targetOf = (file: string) => (file === "_gitignore" ? ".gitignore" : file.replace(/^_/, ""))
/** Files of the template that an application on Deno does not have. */
const onNodeOnly = new Set(["package.json", "tsconfig.json"])
const filesOf = (folder: string): ReadonlyArray<string> =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))

/** The text of a file: with the application's name, the version of Millrace, and on Deno its commands. */
const textOf = (text: string, file: string, { deno, name, version }: NewApplication & { readonly name: string }) => {
  if (file.startsWith("data")) return text
  const named = text.replaceAll(templateName, file === "millrace.config.ts" ? (name.split("/").at(-1) ?? name) : name)
  const versioned = named.replace(/(millrace(@|": "))\^0\.0\.0/g, `$1^${version}`)
  return deno ? denoTextOf(versioned) : versioned
}
/** What people run and import on Node, and the same on Deno. */
const onDeno: ReadonlyArray<readonly [node: string, deno: string]> = [
  ["npm start", "deno task start"],
  ["npm test", "deno task test"],
  ["npm run typecheck", "deno task check"],
  ["npm install", "deno install"],
  ["npx millrace", "deno task millrace"],
  ["package.json", "deno.json"],
  ['from "vitest"', 'from "node:test"']
]
const denoTextOf = (text: string) => onDeno.reduce((so, [node, deno]) => so.replaceAll(node, deno), text)

const isPackageName = (name: string): boolean =>
  name.length <= 214 && /^(@[a-z0-9~-][a-z0-9._~-]*\/)?[a-z0-9~-][a-z0-9._~-]*$/.test(name) && !taken.has(name)
const checkedName = (name: string): string => {
  if (isPackageName(name)) return name
  throw new CannotCreate(
    taken.has(name)
      ? `the name '${name}' is taken: the application depends on that package, or npm keeps the name for itself`
      : `the name '${name}' is not one that npm accepts`,
    "a name of lower-case letters, digits and -, such as my-app"
  )
}
/** The name of a folder as a name that npm accepts. */
const nameFrom = (path: string): string => {
  const name = basename(path)
    .toLowerCase()
    .replaceAll(/[^a-z0-9~._-]+/g, "-")
    .replaceAll(/^[-._]+|[-._]+$/g, "")
  if (isPackageName(name)) return name
  throw new CannotCreate(
    `the folder '${basename(path)}' gives no name that an application can have`,
    "name the application with --name, such as --name my-app"
  )
}

/** Throws if creating the application could overwrite something. */
const assertFree = (path: string, directory: string): void => {
  if (!existsSync(path)) return
  if (!statSync(path).isDirectory())
    throw new CannotCreate(`${directory} is a file, not a folder`, "name a folder that does not exist yet")
  const found = readdirSync(path).filter((name) => !harmless.test(name))
  if (found.length === 0) return
  const some = found.slice(0, 3).join(", ")
  const rest = found.length > 3 ? ` and ${found.length - 3} more` : ""
  throw new CannotCreate(
    `the folder ${directory} is not empty, and nothing in it is overwritten: it has ${some}${rest}`,
    `name a folder that does not exist yet, such as ${join(directory, "my-app")}; to add Millrace to a project that you have, npm install millrace effect`
  )
}
