// A state directory that another user may write into: no link, second name, FIFO or exchanged directory leads a write, a read or a new owner elsewhere.
import { execFileSync, spawnSync } from "node:child_process"
import {
  chmodSync,
  closeSync,
  existsSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { userServing } from "../../../../src/postgres/embedded/accounts.ts"
import { accountFor, findBinaries } from "../../../../src/postgres/embedded/binaries.ts"
import { passwordOf } from "../../../../src/postgres/embedded/cluster.ts"
import * as Embedded from "../../../../src/postgres/embedded/embedded.ts"
import {
  assertOwnWish,
  inState,
  makeDirectory,
  openForAppending,
  readSecret,
  readSmall,
  replaceFile
} from "../../../../src/postgres/embedded/files.ts"
import { removed } from "../../../support/removed.ts"

const nobody = { uid: 65_534, gid: 65_534 }
const isRoot = process.getuid?.() === 0
const root = mkdtempSync(join(tmpdir(), "millrace-files-"))
chmodSync(root, 0o755)
afterAll(() => removed(root))

let count = 0
let state = ""
let victim = ""
beforeEach(() => {
  state = join(root, `state-${++count}`)
  victim = join(root, `victim-${count}`)
  mkdirSync(state, { mode: 0o755 })
  writeFileSync(victim, "precious", { mode: 0o600 })
})
/** Asserts that the victim is as it was. */
const untouched = () => {
  assert.strictEqual(readFileSync(victim, "utf8"), "precious")
  const { mode, uid } = statSync(victim)
  assert.deepStrictEqual([uid, mode & 0o777], [process.getuid?.(), 0o600])
}
const append = () => inState(state, [], (directory) => closeSync(openForAppending(directory, "log", undefined)))

describe("a file that is written or read", () => {
  it("is refused if it is a link, has a second name, or is a FIFO or a directory, without waiting", () => {
    const plants: ReadonlyArray<readonly [RegExp, (path: string) => unknown]> = [
      [/is a symbolic link/, (path) => symlinkSync(victim, path)],
      [/is a symbolic link/, (path) => symlinkSync(join(root, "not-there"), path)],
      [/second name/, (path) => linkSync(victim, path)],
      [/no plain file/, (path) => execFileSync("mkfifo", [path])],
      [/no plain file|EISDIR/, (path) => mkdirSync(path)]
    ]
    for (const [why, plant] of plants) {
      const path = join(state, "log")
      plant(path)
      assert.throws(append, why)
      assert.throws(() => inState(state, [], (directory) => readSmall(directory, "log")), why)
      assert.throws(() => inState(state, [], (directory) => readSecret(directory, "log")), why)
      rmSync(path, { recursive: true })
      assert.isFalse(existsSync(join(root, "not-there")))
      untouched()
    }
    append()
    assert.strictEqual(statSync(join(state, "log")).mode & 0o777, 0o600)
  })

  it("is replaced where it is a link, which is not followed, and only the new file is given away", () => {
    for (const plant of [() => symlinkSync(victim, join(state, "conf")), () => linkSync(victim, join(state, "conf"))]) {
      plant()
      inState(state, [], (directory) => replaceFile(directory, "conf", "new", isRoot ? nobody : undefined))
      assert.strictEqual(readFileSync(join(state, "conf"), "utf8"), "new")
      assert.isFalse(lstatSync(join(state, "conf")).isSymbolicLink())
      if (isRoot) assert.strictEqual(statSync(join(state, "conf")).uid, nobody.uid)
      rmSync(join(state, "conf"))
      untouched()
    }
  })

  it("with a password is closed to other users", () => {
    writeFileSync(join(state, "password"), "x", { mode: 0o644 })
    inState(state, [], (directory) => readSecret(directory, "password"))
    assert.strictEqual(statSync(join(state, "password")).mode & 0o777, 0o600)
  })

  it.skipIf(!isRoot)("is refused if it belongs to a third user", () => {
    chmodSync(state, 0o777)
    writeFileSync(join(state, "log"), "")
    lchownSync(join(state, "log"), 1_234, 1_234)
    assert.throws(append, /belongs to user 1234/)
  })
})

describe("a directory", () => {
  it("is refused below the state directory if it is a link, and a file there stays as it is", () => {
    mkdirSync(join(root, `elsewhere-${count}`))
    symlinkSync(join(root, `elsewhere-${count}`), join(state, "log"))
    inState(state, [], (directory) => makeDirectory(directory, "log", isRoot ? nobody : undefined))
    assert.throws(() => inState(state, ["log"], () => undefined), /is a symbolic link/)
    assert.strictEqual(statSync(join(root, `elsewhere-${count}`)).uid, process.getuid?.())
  })

  it.skipIf(process.platform !== "linux")("that is exchanged for another one after the check gets nothing", () => {
    mkdirSync(join(state, "log"))
    mkdirSync(join(state, "other"))
    inState(state, ["log"], (directory) => {
      renameSync(join(state, "log"), join(state, "moved"))
      symlinkSync(join(state, "other"), join(state, "log"))
      replaceFile(directory, "file", "x", undefined)
    })
    assert.isTrue(existsSync(join(state, "moved/file")))
    assert.isFalse(existsSync(join(state, "other/file")))
  })

  it.skipIf(!isRoot)("is not given away if it was there before", () => {
    mkdirSync(join(state, "log"))
    inState(state, [], (directory) => makeDirectory(directory, "log", nobody))
    assert.strictEqual(statSync(join(state, "log")).uid, 0)
  })
})

describe("an error of the system", () => {
  it("names the path in the state directory, not the descriptor that leads there", () => {
    mkdirSync(join(state, "log"))
    const raised = (names: ReadonlyArray<string>) => {
      try {
        inState(state, names, ({ at }) => mkdirSync(join(at, "none/deeper")))
        return undefined
      } catch (error) {
        return error as NodeJS.ErrnoException
      }
    }
    for (const [names, path] of [
      [[], join(state, "none/deeper")],
      [["log"], join(state, "log/none/deeper")]
    ] as const) {
      const error = raised(names)
      assert.strictEqual(error?.code, "ENOENT")
      assert.include(error?.message, `'${path}'`)
      assert.notInclude(error?.message, "/proc/")
    }
  })
})

describe.skipIf(!isRoot)("root", () => {
  it("follows a link to a state directory that root made, or whose target is the link's owner's, and no other", () => {
    const link = `${state}-link`
    symlinkSync(state, link)
    assertOwnWish(link)
    lchownSync(link, nobody.uid, nobody.gid)
    assert.throws(() => assertOwnWish(link), /is a symbolic link of user 65534/)
    assert.throws(() => assertOwnWish(join(link, "deeper")), /is a symbolic link of user 65534/)
    lchownSync(state, nobody.uid, nobody.gid)
    assertOwnWish(link)
  })

  it("refuses a state directory that everybody may write into, and one in such a directory unless it is sticky as /tmp is", () => {
    chmodSync(state, 0o777)
    assert.throws(() => assertOwnWish(state), /may be written by everybody/)
    mkdirSync(join(state, "inner"))
    assert.throws(() => assertOwnWish(join(state, "inner")), /may be written by everybody/)
    chmodSync(state, 0o1777)
    assertOwnWish(join(state, "inner"))
  })

  it(
    "starts the server in another user's directory without following what that user planted, and the user can go on alone",
    { timeout: 60_000 },
    async () => {
      lchownSync(state, nobody.uid, nobody.gid)
      const start = Effect.scoped(Effect.map(Embedded.start({ dataDir: state }), ({ url }) => url))
      const url = await Effect.runPromise(start)
      const plants = [
        "log/postgres.log",
        "password",
        "millrace.json",
        "postgres/millrace.roles",
        "postgres/postmaster.pid",
        "postgres/PG_VERSION"
      ]
      for (const name of plants) {
        const path = join(state, name)
        if (existsSync(path)) renameSync(path, `${path}.kept`)
        symlinkSync(victim, path)
        lchownSync(path, nobody.uid, nobody.gid)
        const error = await Effect.runPromise(Effect.flip(start))
        assert.strictEqual(error.reason, "Permission", name)
        assert.include(error.message, `${name} is a symbolic link`)
        untouched()
        rmSync(path)
        if (existsSync(`${path}.kept`)) renameSync(`${path}.kept`, path)
      }
      // a file that is written again takes the link's place
      rmSync(join(state, "postgres/millrace.conf"))
      symlinkSync(victim, join(state, "postgres/millrace.conf"))
      assert.strictEqual(await Effect.runPromise(start), url)
      assert.isTrue(lstatSync(join(state, "postgres/millrace.conf")).isFile())
      untouched()
      const script = join(import.meta.dirname, "../../../support/embedded-child.ts")
      const flags = "Deno" in globalThis ? ["run", "-A"] : []
      const alone = spawnSync(process.execPath, [...flags, script, "start", state], {
        ...nobody,
        encoding: "utf8",
        cwd: "/"
      })
      assert.include(alone.stdout, '"started":"restarted"', alone.stderr)
      assert.strictEqual(await Effect.runPromise(start), url)
      const stranger = spawnSync(process.execPath, [...flags, script, "start", state], {
        uid: 1_234,
        gid: 1_234,
        encoding: "utf8",
        cwd: "/"
      })
      assert.include(stranger.stdout, "belongs to user 65534, and this process runs as user 1234")
    }
  )

  it("trusts in a directory the files that it gives to the server's account there, and no other account's", () => {
    const system = userServing(1_234)
    assert.isDefined(system)
    for (const [owner, mode] of [
      [1_234, 0o755],
      [1_234, 0o700],
      [0, 0o775]
    ] as const) {
      chmodSync(state, mode)
      lchownSync(state, owner, owner)
      const account = accountFor(state, join(state, "postgres"), findBinaries())
      assert.strictEqual(account.owner?.uid, system?.uid)
      assert.strictEqual(passwordOf(state, account), passwordOf(state, account))
      lchownSync(join(state, "password"), 1_235, 1_235)
      assert.throws(() => passwordOf(state, account), /belongs to user 1235/)
      rmSync(join(state, "password"))
    }
    // a user of the machine has its own account, and no other is trusted there
    lchownSync(state, nobody.uid, nobody.gid)
    lchownSync(victim, system?.uid ?? 0, 0)
    renameSync(victim, join(state, "password"))
    assert.throws(() => inState(state, [], (directory) => readSecret(directory, "password")), /belongs to user/)
  })

  it("starts and restarts the server in a directory of a user without an account", { timeout: 60_000 }, async () => {
    lchownSync(state, 1_234, 1_234)
    const start = Effect.scoped(
      Effect.map(Embedded.start({ dataDir: state }), ({ started, url }) => ({ started, url }))
    )
    const first = await Effect.runPromise(start)
    assert.strictEqual(first.started, "initialised")
    assert.deepStrictEqual(await Effect.runPromise(start), { started: "restarted", url: first.url })
  })
})
