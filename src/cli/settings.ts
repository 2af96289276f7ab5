// What is in force: the value of each setting, where it came from, and what holds where it is not set. Pure.
import { mask, maskSecrets } from "../text/secrets.ts"
import { settingTable } from "./setting-table.ts"

/** A setting that is in force. */
export interface Setting {
  /** The environment variable, or the option. */
  readonly name: string
  /** Its key in the file of settings; undefined if it cannot be there. */
  readonly key?: string
  /** With secrets masked; null if it is not set and nothing holds in its place. */
  readonly value: string | null
  readonly from: "option" | "environment" | "file" | "default"
  /** The file with the value. */
  readonly file?: string
}

/**
 * What holds for each setting. An empty variable counts as not set. `from`: the file of each variable that was set from one.
 */
export const settingsIn = (
  env: Readonly<Record<string, string | undefined>>,
  from: ReadonlyMap<string, string> = new Map()
): ReadonlyArray<Setting> =>
  settingTable.map(({ default: usual, isEmptyMeant, key, secret, variable: name }) => {
    const value = env[name] ?? ""
    if (value === "" && !(isEmptyMeant === true && env[name] !== undefined))
      return { name, key, value: usual ?? null, from: "default" }
    const file = from.get(name)
    const shown = secret === "whole" ? mask : maskSecrets(value, env)
    return file === undefined
      ? { name, key, value: shown, from: "environment" }
      : { name, key, value: shown, from: "file", file }
  })
