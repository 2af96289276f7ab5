// Finds and loads the rules of a bridge: a file that is named, or the usual ones of the working directory. It mirrors nothing.
import { existsSync, readFileSync } from "node:fs"
import { resolve } from "node:path"
import { pathToFileURL } from "node:url"
import * as Effect from "effect/Effect"
import { Bridge, type BridgeOptions, InvalidBridge } from "../../bridge/rules.ts"
import { CommandFailed, exitCodes } from "../command-failure.ts"

const names = ["millrace.bridge.json", "millrace.bridge.ts", "millrace.config.ts"]
const example = 'write { "rules": [{ "from": "kafka:TOPIC", "to": "pulsar:persistent://TENANT/NAMESPACE/TOPIC" }] }'

const failed = (message: string, advice: string) => new CommandFailed({ message, try: advice })
/** The usual file that there is. */
const usual = () => names.map((name) => resolve(name)).find((name) => existsSync(name))
/** A bridge from what a file has: JSON with rules, or a module with a bridge as its default export, or as `bridge`; undefined: it has none. */
const bridgeIn = async (path: string): Promise<Bridge | undefined> => {
  if (path.endsWith(".json")) return Bridge.make(JSON.parse(readFileSync(path, "utf8")) as BridgeOptions)
  const module = (await import(pathToFileURL(path).href)) as Readonly<Record<string, Partial<Bridge> | undefined>>
  return [module["bridge"], module["default"]].find((one) => one?.kind === "bridge") as Bridge | undefined
}
const read = (path: string): Effect.Effect<Bridge | undefined, CommandFailed> =>
  Effect.tryPromise({
    try: () => bridgeIn(path),
    catch: (cause) => {
      const { message } = cause as Error
      return cause instanceof InvalidBridge
        ? new CommandFailed({ message, exitCode: exitCodes.usage })
        : failed(`${path} does not load: ${message}`, example)
    }
  })

/** The bridge of a file; without one, of the first that there is of the usual ones. Fails where there is none, or it makes no sense. */
export const load = Effect.fnUntraced(function* (file: string | undefined): Effect.fn.Return<Bridge, CommandFailed> {
  const path = file === undefined ? usual() : resolve(file)
  if (path === undefined || !existsSync(path)) {
    const message =
      file === undefined ? `there are no rules: no ${names.join(", ")} in ${process.cwd()}` : `there is no ${path}`
    return yield* failed(message, `--rules FILE; ${example}`)
  }
  const found = yield* read(path)
  return (
    found ?? (yield* failed(`${path} has no bridge`, "export const bridge = Bridge.make({ rules: [{ from, to }] })"))
  )
})
/** The same, for who can do without: undefined where none is named and no usual file has a bridge. */
export const loadIfAny = (file: string | undefined): Effect.Effect<Bridge | undefined, CommandFailed> => {
  if (file !== undefined) return load(file)
  const path = usual()
  return path === undefined ? Effect.succeed(undefined) : read(path)
}
