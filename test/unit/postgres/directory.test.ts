// Creating a state directory: with its parents, beside other processes, and where a file system refuses it; and which directories are one.
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { afterAll, describe, expect, test } from "vitest"
import { assertStateDirectory, createDirectory } from "../../../src/postgres/embedded/directory.ts"

const root = mkdtempSync(join(tmpdir(), "millrace-directory-"))
afterAll(() => rmSync(root, { recursive: true }))
const codeOf = (path: string): unknown => {
  try {
    createDirectory(path)
    return undefined
  } catch (error) {
    return (error as NodeJS.ErrnoException).code
  }
}

test("a directory is created with its parents, and the first of them is returned", () => {
  expect(createDirectory(join(root, "a/b/c"))).toBe(join(root, "a"))
  expect(existsSync(join(root, "a/b/c"))).toBe(true)
  expect(createDirectory(join(root, "a/b/c"))).toBeUndefined()
  expect(createDirectory(join(root, "a/d"))).toBe(join(root, "a/d"))
})
test("a link to a directory is one", () => {
  mkdirSync(join(root, "real"))
  symlinkSync(join(root, "real"), join(root, "link"))
  expect(createDirectory(join(root, "link"))).toBeUndefined()
  expect(createDirectory(join(root, "link/inner"))).toBe(join(root, "link/inner"))
})
test("a file, a path below a file, and a link to nothing are refused", () => {
  writeFileSync(join(root, "file"), "")
  symlinkSync(join(root, "nothing"), join(root, "dangling"))
  expect(codeOf(join(root, "file"))).toBe("EEXIST")
  // runtimes differ in whether they look at the path or create it first
  expect(["EEXIST", "ENOTDIR"]).toContain(codeOf(join(root, "file/below")))
  expect(codeOf(join(root, "dangling"))).toBe("EEXIST")
  expect(codeOf("/dev/null")).toBe("EEXIST")
})
test.runIf(process.platform === "linux").each(["/proc/x", "/proc/self/x/y", "/sys/x"])(
  "%s, which no file system creates, ends with an error",
  (path) => {
    expect(["ENOENT", "EPERM", "EACCES"]).toContain(codeOf(path))
  }
)

describe("a directory that exists", () => {
  let count = 0
  /** A directory with these files; a name that ends with / is a directory. */
  const holding = (...names: ReadonlyArray<string>): string => {
    const path = join(root, `holding-${++count}`)
    mkdirSync(path)
    for (const name of names) {
      const [at = "", content = ""] = name.split("=")
      mkdirSync(at.endsWith("/") ? join(path, at) : dirname(join(path, at)), { recursive: true })
      if (!at.endsWith("/")) writeFileSync(join(path, at), content)
    }
    return path
  }

  test.each([
    [[]],
    [["lost+found/"]],
    [[".gitkeep"]],
    [[".gitignore", ".DS_Store"]],
    [["lock/"]],
    [["lock/own-12-abc1"]],
    [["lock/own-12-abc1", "notes.txt"]],
    [["lock/", "password", "notes.txt"]],
    [["lock/", "postgres.init-12-1700000000000/", "notes.txt"]],
    [["postgres.init-12-1700000000000/base/", "notes.txt"]],
    [["lock/", "log/postgres.log", "postgres/PG_VERSION"]],
    [["lock/", "password.12.0a0b0c0d"]],
    [["password", "postgres/PG_VERSION", "notes.txt"]],
    [["postgres/millrace.conf", "notes.txt"]],
    [["postgres/millrace.roles", ".hidden"]],
    [['millrace.json={"pid":null,"holder":"own-1-a"}', "notes.txt"]]
  ])("that is empty, or has what Millrace puts there, is a state directory: %j", (names) => {
    expect(() => assertStateDirectory(holding(...names))).not.toThrow()
  })

  test.each([
    [["notes.txt"], "notes.txt"],
    [[".hidden"], ".hidden"],
    [["etc/", "usr/", "var/"], "etc"],
    // as /run, /var, a project, a cluster of PostgreSQL, and directories with secrets
    [["lock/lvm/", "user/"], "lock"],
    [["lock/lvm/"], "lock"],
    [["lock/", "shm/"], "lock"],
    [["lock", "log/"], "lock"],
    [["log/syslog"], "log"],
    [["millrace.config.ts", "millrace.bridge.json"], "millrace.bridge.json"],
    [['millrace.json={"name":"mine"}'], "millrace.json"],
    [["postgres/PG_VERSION=18", "postgres/postgresql.conf"], "postgres"],
    [["password"], "password"],
    [["password", "token"], "password"]
  ])("that holds something else is refused and stays as it is: %j", (names, held) => {
    const path = holding(...names)
    const before = readdirSync(path, { recursive: true }).toSorted()
    expect(() => assertStateDirectory(path)).toThrow(
      `${path} is no state directory of Millrace, and it is not empty: it holds ${held}. try: choose another directory with --data DIR, a new or an empty one`
    )
    expect(readdirSync(path, { recursive: true }).toSorted()).toEqual(before)
  })

  test("that all users share is refused while it is empty, and works on if it is a state directory", () => {
    const path = holding()
    chmodSync(path, 0o1777)
    expect(() => assertStateDirectory(path)).toThrow(`${path} is shared by all users`)
    mkdirSync(join(path, "lock"))
    expect(() => assertStateDirectory(path)).not.toThrow()
  })

  test("with links in the place of Millrace's files is none", () => {
    const path = holding("notes.txt")
    const ours = holding("lock/own-1-a", "password", "postgres/millrace.conf", 'millrace.json={"holder":"own-1-a"}')
    for (const name of ["lock", "password", "postgres", "millrace.json"])
      symlinkSync(join(ours, name), join(path, name))
    expect(() => assertStateDirectory(path)).toThrow("is no state directory of Millrace")
  })
})
