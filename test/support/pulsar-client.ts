// The package `pulsar-client` for tests: as installed, else unpacked from an archive with its binary, beside the checkout. It tests nothing.
import { execFileSync } from "node:child_process"
import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs"
import { createRequire } from "node:module"
import { homedir } from "node:os"
import { join, resolve } from "node:path"
import { fileURLToPath } from "node:url"

const file = "pulsar-client-1.18.0-linux-x64.tgz"
const root = fileURLToPath(new URL("../..", import.meta.url))

/** Where the package lies, with a binary that loads. Undefined: it cannot be had here. */
export const pulsarClient = (): string | undefined => {
  const load = createRequire(import.meta.url)
  try {
    load("pulsar-client")
    return "pulsar-client"
  } catch {
    // Its install step could not download the binary.
  }
  if (process.platform !== "linux" || process.arch !== "x64") return undefined
  const given = process.env["MILLRACE_PULSAR_NATIVE"]
  const places = [given ?? "", ...["..", "../.."].map((up) => resolve(root, up, "shared/pulsar-native"))]
  const archive = places
    .filter((place) => place !== "")
    .map((place) => (place.endsWith(".tgz") ? place : join(place, file)))
    .find((place) => existsSync(place))
  return archive === undefined ? undefined : unpacked(archive)
}

const unpacked = (archive: string): string => {
  const cache = process.env["MILLRACE_CACHE"] ?? join(homedir(), ".cache", "millrace")
  const directory = join(cache, "pulsar-client-1.18.0")
  const installed = join(directory, "node_modules", "pulsar-client")
  if (existsSync(installed)) return installed
  // test files run side by side: the first that is done wins
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
