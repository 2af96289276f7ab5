// What the starts of a service have in common, created once and kept beside the jars: an archive of loaded classes, and what else it needs.
import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { StackError } from "./errors.ts"
import { lock } from "./jars.ts"

const patienceMs = 180_000

/** The folder of a service's image; it is there, complete, or not at all. */
export const imageIn = (libraries: string): string => join(libraries, "image")
/** The file of the archive of classes in the folder of an image. */
export const archiveIn = (image: string): string => join(image, "classes.jsa")

/** Returns the folder of an image. The first caller fills it with `make`, in a folder of another name; other callers wait for that. */
export const image = async (libraries: string, make: (fresh: string) => Promise<void>): Promise<string> => {
  const folder = imageIn(libraries)
  const deadline = Date.now() + patienceMs
  while (!existsSync(folder)) {
    const release = lock(`${folder}.lock`)
    try {
      if (release !== undefined && !existsSync(folder)) await create(folder, make)
    } finally {
      release?.()
    }
    if (Date.now() > deadline) {
      const message = `another process holds ${folder}.lock for three minutes. try: remove it`
      throw new StackError({ reason: "Start", message })
    }
    if (release === undefined) await sleep(100)
  }
  return folder
}
const create = async (folder: string, make: (fresh: string) => Promise<void>): Promise<void> => {
  const fresh = `${folder}-${process.pid}`
  rmSync(fresh, { recursive: true, force: true })
  mkdirSync(fresh)
  try {
    await make(fresh)
    renameSync(fresh, folder)
  } finally {
    rmSync(fresh, { recursive: true, force: true })
  }
}

/** The arguments with which a JVM loads classes from an image's archive, which halves the time of a start; none if it has no archive. */
export const archived = (image: string): ReadonlyArray<string> => {
  const archive = archiveIn(image)
  // a JVM of another version ignores the archive and says nothing
  const use = ["-Xshare:auto", "-Xlog:cds=off", "-Xlog:cds+dynamic=off", `-XX:SharedArchiveFile=${archive}`]
  return existsSync(archive) ? use : []
}
