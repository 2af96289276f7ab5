// Creating a state directory: with its parents, beside other processes, and where a file system refuses it.
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, expect, test } from "vitest"
import { createDirectory } from "../../../src/postgres/embedded/directory.ts"

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
  expect(codeOf(join(root, "file/below"))).toBe("EEXIST")
  expect(codeOf(join(root, "dangling"))).toBe("EEXIST")
  expect(codeOf("/dev/null")).toBe("EEXIST")
})
test.runIf(process.platform === "linux").each(["/proc/x", "/proc/self/x/y", "/sys/x"])(
  "%s, which no file system creates, ends with an error",
  (path) => {
    expect(["ENOENT", "EPERM", "EACCES"]).toContain(codeOf(path))
  }
)
