// What every Kafka node starts from: formatted storage and an archive of loaded classes, created once and kept beside the jars.
import { randomBytes } from "node:crypto"
import { cpSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { StackError } from "./errors.ts"
import { archived, archiveIn, image as imageOf } from "./image.ts"
import { java, jvmFlags } from "./jars.ts"
import { run, tail } from "./process.ts"

/** What a node starts from. */
export interface Image {
  /** Storage to copy; undefined if the node formats its own. */
  readonly template: string | undefined
  /** JVM arguments for the class archive, which halves the time of a start. */
  readonly archive: ReadonlyArray<string>
}

/** Starts and stops a first node in `directory`, whose JVM writes its classes to `archive`. Returns the folder of its storage. */
export type Rehearse = (directory: string, libraries: string, archive: string) => Promise<string>

/** Returns the image beside the jars. The first caller creates it, in about ten seconds; other callers wait for that. */
export const image = async (libraries: string, rehearse: Rehearse): Promise<Image> => {
  const folder = await imageOf(libraries, async (fresh) => {
    const storage = await rehearse(join(fresh, "node"), libraries, archiveIn(fresh))
    mkdirSync(join(fresh, "storage"))
    // only what formatting wrote, not what the node wrote later
    for (const file of readdirSync(storage).filter((name) => name === "bootstrap.checkpoint")) {
      cpSync(join(storage, file), join(fresh, "storage", file))
    }
    rmSync(join(fresh, "node"), { recursive: true, force: true })
  })
  return { template: join(folder, "storage"), archive: archived(folder) }
}

/** Creates the storage of a new node from an image: formatted storages differ in their ids alone. */
export const copy = (template: string, storage: string, node = "1", cluster = randomId()): void => {
  cpSync(template, storage, { recursive: true })
  const ids = { "node.id": node, "cluster.id": cluster, "directory.id": randomId() }
  writeFileSync(join(storage, "meta.properties"), text({ version: "1", ...ids }))
}

/** Formats the storage that a configuration names, with Kafka's own tool in a separate JVM. */
export const format = async (
  directory: string,
  libraries: string,
  config: string,
  more: ReadonlyArray<string> = []
): Promise<void> => {
  const log = join(directory, "format.log")
  const tool = ["kafka.tools.StorageTool", "format", "--cluster-id", randomId(), "--config", config, ...more]
  const command = [java(), "-Xmx128m", ...jvmFlags(), "-cp", join(libraries, "*"), ...tool]
  const formatting = await run({ command, directory, log })
  await formatting.exited
  const said = tail(log, 0)
  if (/Formatting/.test(said)) return
  const message = `the storage of Kafka was not formatted: ${said}\ntry: the same again`
  throw new StackError({ reason: "Start", message })
}
/** A random id for a cluster or a directory. */
export const randomId = () => randomBytes(16).toString("base64url")

/** Properties as a file's text. */
export const text = (properties: Readonly<Record<string, string>>): string =>
  Object.entries(properties)
    .map(([name, value]) => `${name}=${value}\n`)
    .join("")
