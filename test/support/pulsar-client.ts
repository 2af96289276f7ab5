// Finds the package `pulsar-client` for tests: installed, or unpacked from an archive that has its binary.
import { execFileSync } from "node:child_process"
import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs"
import { createRequire } from "node:module"
import { homedir } from "node:os"
import { join, resolve } from "node:path"
import { fileURLToPath } from "node:url"

const file = "pulsar-client-1.18.0-linux-x64.tgz"
const root = fileURLToPath(new URL("../..", import.meta.url))

type Found = { readonly client: string; readonly problem: undefined } | { readonly problem: string }
let found: Found | undefined

const search = (): Found => {
  const load = createRequire(import.meta.url)
  try {
    load("pulsar-client")
    return { client: "pulsar-client", problem: undefined }
  } catch {
    // npm could not download the binary when it installed the package
  }
  const remedy = `try: npm install --no-save pulsar-client@1.18.0 with access to GitHub, or put ${file} into a folder and set MILLRACE_PULSAR_NATIVE to it`
  const missing = `the binary of pulsar-client, the native client of Pulsar, is not installed`
  if (process.platform !== "linux" || process.arch !== "x64")
    return { problem: `${missing}. try: npm install --no-save pulsar-client@1.18.0 with access to GitHub` }
  const given = process.env["MILLRACE_PULSAR_NATIVE"] ?? ""
  const folders = given === "" ? ["..", "../.."].map((up) => resolve(root, up, "shared/pulsar-native")) : [given]
  const archive = folders
    .map((folder) => (folder.endsWith(".tgz") ? folder : join(folder, file)))
    .find((path) => existsSync(path))
  if (archive === undefined)
    return {
      problem: `${missing}${given === "" ? "" : `, and MILLRACE_PULSAR_NATIVE=${given} has no ${file}`}. ${remedy}`
    }
  try {
    return { client: unpacked(archive), problem: undefined }
  } catch (error) {
    return { problem: `${missing}, and ${archive} could not be unpacked: ${(error as Error).message}. ${remedy}` }
  }
}
const result = () => (found ??= search())

/** Where the package is, with a binary that loads; undefined if this machine does not have one. */
export const pulsarClient = (): string | undefined => {
  const one = result()
  return one.problem === undefined ? one.client : undefined
}

/** Why this machine does not have the package's binary, and how to get it; undefined if it does. */
export const nativeProblem = (): string | undefined => result().problem

const unpacked = (archive: string): string => {
  const cache = process.env["MILLRACE_CACHE"] ?? join(homedir(), ".cache", "millrace")
  const directory = join(cache, "pulsar-client-1.18.0")
  const installed = join(directory, "node_modules", "pulsar-client")
  if (existsSync(installed)) return installed
  // several test files may do this at the same time; the first that renames its folder wins
  const own = `${directory}-${process.pid}`
  mkdirSync(own, { recursive: true })
  execFileSync("npm", ["install", "--no-save", "--no-package-lock", "--ignore-scripts", "--prefix", own, archive], {
    stdio: "pipe"
  })
  try {
    renameSync(own, directory)
  } catch {
    rmSync(own, { recursive: true, force: true })
  }
  return installed
}
