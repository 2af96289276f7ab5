// Measures what a new user waits for: the size of the packages, an installation, and how fast commands start. Needs the npm registry.
import { execFileSync, spawn } from "node:child_process"
import { chmodSync, lstatSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { packInto } from "../test/support/packed.ts"

const runs = 7
const scratch = mkdtempSync(join(tmpdir(), "millrace-package-"))
// PostgreSQL may run as another account, which has to reach its files
chmodSync(scratch, 0o711)

const sizeOf = (path: string): number => {
  const status = lstatSync(path, { throwIfNoEntry: false })
  if (status === undefined) return 0
  if (!status.isDirectory()) return status.size
  return readdirSync(path).reduce((sum, name) => sum + sizeOf(join(path, name)), 0)
}
const megabytes = (bytes: number) => Number((bytes / 1e6).toFixed(1))
const kilobytes = (bytes: number) => Math.round(bytes / 1e3)
const timed = (run: () => void) => {
  const started = performance.now()
  run()
  return performance.now() - started
}
const median = (times: ReadonlyArray<number>) => Math.round(times.toSorted((a, b) => a - b)[times.length >> 1]!)
const medianOf = (run: () => void) => median(Array.from({ length: runs }, () => timed(run)))

/** Runs `millrace dev` until `/readyz` would be asked, that is until it prints that it runs, and stops it. */
const readyMs = (folder: string, port: number) =>
  new Promise<number>((resolve, reject) => {
    const started = performance.now()
    const bin = join(folder, "node_modules/millrace/bin/millrace.mjs")
    const child = spawn(process.execPath, [bin, "dev", "--port", String(port)], { cwd: folder })
    let ms = 0
    let output = ""
    const listen = (chunk: Buffer) => {
      output += chunk.toString()
      if (ms > 0 || !output.includes("Millrace is running")) return
      ms = performance.now() - started
      child.kill("SIGTERM")
    }
    child.stdout.on("data", listen)
    child.stderr.on("data", listen)
    child.once("close", () => (ms > 0 ? resolve(Math.round(ms)) : reject(new Error(`dev ended: ${output}`))))
  })

try {
  const packages = await packInto(scratch)
  const tarballs = Object.fromEntries(
    packages.map(({ manifest: { name }, tarball }) => {
      const files = execFileSync("tar", ["-tzf", tarball], { encoding: "utf8" }).trim().split("\n").length
      const unpacked = execFileSync("tar", ["-xzOf", tarball], { maxBuffer: 1 << 30 }).length
      return [name, { tarballKB: kilobytes(statSync(tarball).size), unpackedKB: kilobytes(unpacked), files }]
    })
  )
  const folder = join(scratch, "user")
  const npm = (...args: ReadonlyArray<string>) =>
    execFileSync("npm", ["--prefix", folder, "--no-audit", "--no-fund", "--loglevel=error", ...args])
  const created = packages.find(({ manifest }) => manifest.name === "create-millrace")!
  const millrace = packages.find(({ manifest }) => manifest.name === "millrace")!
  const creator = join(scratch, "creator")
  execFileSync("npm", ["--prefix", creator, "install", "--loglevel=error", created.tarball])
  const bin = join(creator, "node_modules/create-millrace/bin/create-millrace.mjs")
  const createMs = Math.round(timed(() => execFileSync(process.execPath, [bin, folder, "--no-install"])))
  npm("pkg", "delete", "devDependencies")
  npm("pkg", "set", `dependencies.millrace=file:${millrace.tarball}`)
  const installSeconds = Number((timed(() => npm("install")) / 1000).toFixed(1))
  const modules = join(folder, "node_modules")
  const largest = readdirSync(modules)
    .map((name) => [name, megabytes(sizeOf(join(modules, name)))] as const)
    .toSorted(([, a], [, b]) => b - a)
  const cli = join(modules, "millrace/bin/millrace.mjs")
  writeFileSync(join(folder, "import.mjs"), 'import "millrace"\n')
  writeFileSync(join(folder, "nothing.mjs"), "\n")
  const node =
    (...args: ReadonlyArray<string>) =>
    () =>
      void execFileSync(process.execPath, args, { cwd: folder })
  node(cli, "--help")()
  const result = {
    ...tarballs,
    createMs,
    installSeconds,
    installedMB: megabytes(sizeOf(modules)),
    largestMB: Object.fromEntries(largest.slice(0, 6)),
    nodeMs: medianOf(node("nothing.mjs")),
    helpMs: medianOf(node(cli, "--help")),
    importMs: medianOf(node("import.mjs")),
    firstDevReadyMs: await readyMs(folder, 0),
    devReadyMs: median([await readyMs(folder, 0), await readyMs(folder, 0), await readyMs(folder, 0)])
  }
  process.stdout.write(`${JSON.stringify(result)}\n`)
} finally {
  rmSync(scratch, { recursive: true, force: true, maxRetries: 5 })
}
