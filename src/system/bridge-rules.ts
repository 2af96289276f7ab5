// Finds and loads the rules of a bridge: from a file that is named, or from the usual ones in the working directory.
import { existsSync, readFileSync } from "node:fs"
import { resolve } from "node:path"
import { pathToFileURL } from "node:url"
import * as Effect from "effect/Effect"
import { Bridge, type BridgeOptions } from "../bridge/definition.ts"
import { InvalidBridge } from "../bridge/rule.ts"
import { BridgeRulesError } from "./errors.ts"

const usualNames = ["millrace.bridge.json", "millrace.bridge.ts", "millrace.config.ts"]
const example = 'write { "rules": [{ "from": "kafka:TOPIC", "to": "pulsar:persistent://TENANT/NAMESPACE/TOPIC" }] }'

const failed = (message: string, advice: string) => new BridgeRulesError({ message, try: advice })
/** The first of the usual files that exists. */
const usualFile = () => usualNames.map((name) => resolve(name)).find((name) => existsSync(name))
/** The bridge in a file: JSON with rules, or a module that exports a bridge as `bridge` or as its default. Undefined if the module has none. */
const bridgeIn = async (path: string): Promise<Bridge | undefined> => {
  if (path.endsWith(".json")) return Bridge.make(JSON.parse(readFileSync(path, "utf8")) as BridgeOptions)
  const module = (await import(pathToFileURL(path).href)) as Readonly<Record<string, Partial<Bridge> | undefined>>
  return [module["bridge"], module["default"]].find((one) => one?.kind === "bridge") as Bridge | undefined
}
const read = (path: string): Effect.Effect<Bridge | undefined, BridgeRulesError | InvalidBridge> =>
  Effect.tryPromise({
    try: () => bridgeIn(path),
    catch: (cause) =>
      cause instanceof InvalidBridge ? cause : failed(`${path} does not load: ${(cause as Error).message}`, example)
  })

/** Loads the bridge of a file; without a file, of the first of the usual ones that exists. Fails if there is no bridge. */
export const loadRules = Effect.fnUntraced(function* (
  file: string | undefined
): Effect.fn.Return<Bridge, BridgeRulesError | InvalidBridge> {
  const path = file === undefined ? usualFile() : resolve(file)
  if (path === undefined || !existsSync(path)) {
    const message =
      file === undefined ? `no ${usualNames.join(", ")} in ${process.cwd()}` : `the file ${path} does not exist`
    return yield* failed(`the bridge has no rules: ${message}`, `--rules FILE; ${example}`)
  }
  const found = yield* read(path)
  return (
    found ?? (yield* failed(`${path} has no bridge`, "export const bridge = Bridge.make({ rules: [{ from, to }] })"))
  )
})
/** The same, but undefined if no file is named and none of the usual files has a bridge. */
export const loadRulesIfAny = (
  file: string | undefined
): Effect.Effect<Bridge | undefined, BridgeRulesError | InvalidBridge> => {
  if (file !== undefined) return loadRules(file)
  const path = usualFile()
  return path === undefined ? Effect.succeed(undefined) : read(path)
}
