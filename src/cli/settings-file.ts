// Reads the file of settings, and secrets from files of their own, and sets the variables that the environment does not have.
import { existsSync, readFileSync, statSync } from "node:fs"
import { dirname, resolve } from "node:path"
import { adviceFor } from "../text/similar-names.ts"
import { maskSecrets } from "../text/secrets.ts"
import { type CommandFailed, usageError } from "./command-failure.ts"
import { fileVariableOf, type SettingEntry, type SettingType, settingsVariable, settingTable } from "./setting-table.ts"
import { isOfKubernetes } from "./variables.ts"

type Environment = Record<string, string | undefined>

/** Where the values came from that the environment did not have itself. */
export interface LoadedSettings {
  /** The file of settings; undefined if there is none. */
  readonly file: string | undefined
  /** By the variable: the file with its value. */
  readonly from: ReadonlyMap<string, string>
  readonly warnings: ReadonlyArray<string>
  /** Why the settings cannot be used; undefined if they can. */
  readonly failure: CommandFailed | undefined
}

/** The name of the file of settings that is beside the application. */
const usualName = "millrace.json"
/** A larger file is not one of settings. */
const mostBytes = 1 << 20

const optionIn = (args: ReadonlyArray<string>, name: string): string | undefined => {
  const end = args.indexOf("--")
  const own = end < 0 ? args : args.slice(0, end)
  const joined = own.find((arg) => arg.startsWith(`${name}=`))
  if (joined !== undefined) return joined.slice(name.length + 1)
  const at = own.indexOf(name)
  return at < 0 ? undefined : own[at + 1]
}

/** The file of settings: `--settings`, else `MILLRACE_SETTINGS`, else `millrace.json` beside the application; undefined if there is none. */
const settingsPath = (args: ReadonlyArray<string>, env: Environment): string | undefined => {
  const named = optionIn(args, "--settings") ?? (env[settingsVariable] || undefined)
  if (named !== undefined) return resolve(named)
  const config = optionIn(args, "--config")
  const usual = resolve(config === undefined ? "." : dirname(config), usualName)
  return existsSync(usual) ? usual : undefined
}

const expected = (type: SettingType): string => {
  if (typeof type === "object") return `one of ${type.oneOf.map((value) => JSON.stringify(value)).join(", ")}`
  return {
    text: "a text",
    url: "a URL as a text",
    path: "the path of a file as a text",
    integer: "a whole number of at least 0",
    boolean: "true or false",
    duration: 'a duration as a text, such as "2 minutes"',
    list: "an array of texts",
    objects: "an array of objects"
  }[type]
}
/** The text that a variable has in the place of a value of the file; undefined if the value is of another type. */
const textOf = (type: SettingType, value: unknown, folder: string): string | undefined => {
  if (type === "integer") return Number.isSafeInteger(value) && Number(value) >= 0 ? String(value) : undefined
  if (type === "boolean") return typeof value === "boolean" ? String(value) : undefined
  if (type === "list")
    return Array.isArray(value) && value.every((item) => typeof item === "string" && !item.includes(","))
      ? value.join(",")
      : undefined
  if (type === "objects")
    return Array.isArray(value) && value.every((item) => typeof item === "object" && item !== null)
      ? JSON.stringify(value)
      : undefined
  if (typeof value !== "string") return undefined
  if (typeof type === "object") return type.oneOf.includes(value) ? value : undefined
  return type === "path" && value !== "" ? resolve(folder, value) : value
}

const read = (path: string, what: string): string => {
  try {
    if (statSync(path).size > mostBytes) throw new Error(`it has more than ${mostBytes} bytes`)
    return readFileSync(path, "utf8")
  } catch (cause) {
    throw usageError(
      `${what} ${path} cannot be read: ${(cause as Error).message}`,
      "check that the file exists, and that this user may read it"
    )
  }
}
/** The secret in a file of its own: its text without line breaks at the end, as editors and orchestrators write them. */
const secretIn = (path: string, what: string): string => read(path, what).replace(/[\r\n]+$/, "")

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const shown = ({ secret }: SettingEntry, value: unknown): string =>
  secret === "whole" && typeof value === "string" ? "a text" : maskSecrets(JSON.stringify(value).slice(0, 100))

const groups = new Set(
  settingTable.flatMap(({ key }) => {
    const parts = key.split(".")
    return parts.slice(0, -1).map((_, i) => parts.slice(0, i + 1).join("."))
  })
)
const entries = new Map(settingTable.map((entry) => [entry.key, entry]))

interface FileValue {
  readonly entry: SettingEntry
  readonly text: string
  /** The file with the value, if it is a secret in a file of its own. */
  readonly secretFile?: string
}
/** The values of a file of settings. Throws a `CommandFailed` that names the key. */
const valuesIn = (path: string, text: string): ReadonlyArray<FileValue> => {
  const folder = dirname(path)
  const parsed = (): unknown => {
    try {
      return JSON.parse(text.replace(/^\uFEFF/, ""))
    } catch (cause) {
      // the parser quotes the text, which may have a secret
      const [, at] = /position (\d+)/.exec((cause as Error).message) ?? []
      const line = at === undefined ? "" : `, at line ${text.slice(0, Number(at)).split("\n").length}`
      throw usageError(`${path} is not JSON${line}`, "check commas, quotes and braces; JSON has no comments")
    }
  }
  const found: Array<FileValue> = []
  const valueOf = (entry: SettingEntry, value: unknown): FileValue => {
    if (entry.secret !== undefined && isObject(value)) {
      const { file, ...others } = value
      if (typeof file === "string" && file !== "" && Object.keys(others).length === 0) {
        const secretFile = resolve(folder, file)
        return { entry, text: secretIn(secretFile, `the file of ${entry.key}`), secretFile }
      }
    }
    const asText = textOf(entry.type, value, folder)
    if (asText !== undefined) return { entry, text: asText }
    const orFile = entry.secret === undefined ? "" : ', or {"file": "PATH"}'
    throw usageError(
      `${path}: ${entry.key} is ${shown(entry, value)}; it must be ${expected(entry.type)}${orFile}`,
      `see ${entry.key} in docs/reference/configuration.md`
    )
  }
  const visit = (value: unknown, group: string): void => {
    if (!isObject(value))
      throw usageError(
        `${path}: ${group === "" ? "the whole" : group} is ${JSON.stringify(value)?.slice(0, 100)}; it must be an object`,
        "see docs/reference/configuration.md"
      )
    for (const [name, inner] of Object.entries(value)) {
      const key = group === "" ? name : `${group}.${name}`
      const entry = entries.get(key)
      if (key === "$schema") continue
      if (entry !== undefined) found.push(valueOf(entry, inner))
      else if (groups.has(key)) visit(inner, key)
      else throw unknownKey(path, key)
    }
  }
  visit(parsed(), "")
  return found
}
const unknownKey = (path: string, key: string): CommandFailed => {
  const byVariable = settingTable.find(({ variable }) => variable === key)
  return usageError(
    `${path}: ${key} is not a setting`,
    byVariable === undefined ? adviceFor(key, [...entries.keys()]) : `did you mean ${byVariable.key}?`
  )
}

/** Whether a value of the file is a secret that stands in it. */
const isOpenSecret = ({ entry: { secret }, secretFile, text }: FileValue): boolean =>
  secretFile === undefined &&
  (secret === "whole" ? text !== "" : secret === "password" && maskSecrets(text, {}) !== text)

/** Whether every user of this machine may read a file. Windows has no such bits. */
const isOpenToAll = (path: string): boolean => process.platform !== "win32" && (statSync(path).mode & 0o004) !== 0

let loaded: LoadedSettings | undefined
/** The settings of this process, which are loaded by the first call. */
export const settingsOfProcess = (): LoadedSettings => (loaded ??= loadSettings(process.argv.slice(2), process.env))

/**
 * Sets each variable that the environment does not have: from its `_FILE` variable, else from the file of settings. An option of a command wins
 * over all of them. Never throws: `failure` is why nothing can run.
 */
export const loadSettings = (args: ReadonlyArray<string>, env: Environment): LoadedSettings => {
  const from = new Map<string, string>()
  const warnings: Array<string> = []
  let path: string | undefined
  const isSet = ({ isEmptyMeant, variable }: SettingEntry) =>
    isEmptyMeant === true
      ? env[variable] !== undefined
      : (env[variable] ?? "") !== "" && !isOfKubernetes(variable, env[variable])
  const fill = (entry: SettingEntry, text: string, file: string) => {
    if (isSet(entry)) return
    env[entry.variable] = text
    from.set(entry.variable, file)
  }
  try {
    for (const entry of settingTable) {
      const name = fileVariableOf(entry.variable)
      const file = env[name] ?? ""
      if (entry.secret === undefined || file === "") continue
      if (isSet(entry))
        throw usageError(
          `${entry.variable} and ${name} are both set`,
          "unset one of them: which one counts is not clear"
        )
      fill(entry, secretIn(resolve(file), name), resolve(file))
    }
    path = settingsPath(args, env)
    if (path === undefined) return { file: undefined, from, warnings, failure: undefined }
    const values = valuesIn(path, read(path, "the file of settings"))
    const open = values.filter(isOpenSecret).map(({ entry }) => entry.key)
    if (open.length > 0 && isOpenToAll(path))
      warnings.push(
        `every user of this machine may read ${path}, which has secrets (${open.join(", ")}). try: chmod 600 ${path}, or {"file": "PATH"} in the place of each`
      )
    for (const { entry, secretFile, text } of values) fill(entry, text, secretFile ?? path)
    return { file: path, from, warnings, failure: undefined }
  } catch (error) {
    return { file: path, from, warnings, failure: error as CommandFailed }
  }
}
