// How the stack fetches jars, with a fake Maven: once, completely or not at all, and with errors that say what to do.
import { execFile } from "node:child_process"
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, assert, describe, it } from "vitest"
import { versions } from "../../../stack/jars.ts"

const made: Array<string> = []
afterAll(() => made.forEach((folder) => rmSync(folder, { recursive: true, force: true })))

/** A cache, and a folder of programs with a fake Maven that runs the script for the folder `$out`. */
const place = (script?: string) => {
  const folder = mkdtempSync(join(tmpdir(), "millrace-jars-"))
  made.push(folder)
  const bin = join(folder, "bin")
  const cache = join(folder, "cache")
  mkdirSync(bin)
  const program = (name: string, text: string) => {
    writeFileSync(join(bin, name), `#!/bin/sh\n${text}\n`)
    chmodSync(join(bin, name), 0o755)
  }
  if (script !== undefined) {
    const out = `for a; do case $a in -DoutputDirectory=*) out="\${a#*=}";; esac; done`
    program("mvn", `echo run >> ${folder}/runs\n${out}\n${script}`)
  }
  const runs = () => readFileSync(join(folder, "runs"), "utf8").trim().split("\n").length
  const path = `${bin}:/usr/bin:/bin`
  return { cache, program, path, runs, bin }
}
const file = join(import.meta.dirname, "../../support/jars-child.ts")

/** Fetches Kafka's jars in a separate process. Resolves with their folder, or with the error's reason and message. */
const fetch = (cache: string, path: string): Promise<string> => {
  const args = "Deno" in globalThis ? ["run", "-A", file] : [file]
  const env = { ...process.env, MILLRACE_CACHE: cache, PATH: path }
  return new Promise((resolve, reject) => {
    execFile(process.execPath, args, { env }, (error, stdout) =>
      error === null ? resolve(stdout.trim()) : reject(error)
    )
  })
}
const target = `kafka-${versions.kafka}`

describe("jars", () => {
  it("are fetched once by three processes at once, and not again", async () => {
    const { cache, path, runs } = place(`sleep 1; touch $out/a.jar $out/b.jar`)
    const found = await Promise.all([1, 2, 3].map(() => fetch(cache, path)))
    assert.deepStrictEqual(new Set(found), new Set([join(cache, target)]))
    assert.strictEqual(await fetch(cache, path), join(cache, target))
    assert.strictEqual(runs(), 1)
    assert.deepStrictEqual(readdirSync(cache), [target])
  })

  it("are fetched again if one is missing, or if the process that fetched them was killed", async () => {
    const { cache, path, runs } = place(`touch $out/a.jar $out/b.jar`)
    mkdirSync(cache)
    writeFileSync(join(cache, `${target}.lock`), "999999 gone")
    await fetch(cache, path)
    rmSync(join(cache, target, "a.jar"))
    await fetch(cache, path)
    assert.strictEqual(runs(), 2)
    assert.include(readdirSync(join(cache, target)), "a.jar")
  })

  it("that cannot be fetched leave nothing behind, and the error quotes Maven", async () => {
    const { cache, path } = place(
      `touch $out/a.jar; echo '[ERROR] Could not transfer artifact: Connection refused'; exit 1`
    )
    const said = await fetch(cache, path)
    assert.match(said, /^Download: .*kafka 4\.1\.0 could not be fetched: \[ERROR\] Could not transfer.*\ntry: /)
    assert.deepStrictEqual(readdirSync(cache), [])
  })

  it("need Maven", async () => {
    const { bin, cache } = place()
    assert.match(await fetch(cache, bin), /^Missing: mvn is not installed.*try: install Maven/)
  })
})
