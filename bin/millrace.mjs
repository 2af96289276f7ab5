#!/usr/bin/env node
// The `millrace` command: checks the version of Node, then starts the command line. Plain JavaScript, so that an old Node can run the check.
import { existsSync } from "node:fs"
import module from "node:module"
import { resolveByText } from "./imports.mjs"

const required = [22, 19]
const [major = 0, minor = 0] = process.versions.node.split(".").map(Number)

if (major < required[0] || (major === required[0] && minor < required[1])) {
  console.error(
    `millrace needs Node ${required.join(".")} or newer (24 is recommended), but this is Node ${process.versions.node}. try: install Node 24 from https://nodejs.org; in a checkout npx millrace uses the Node that npm ci installs`
  )
  process.exit(1)
}

// Caches compiled code, which halves the time of a start. NODE_COMPILE_CACHE sets the directory, NODE_DISABLE_COMPILE_CACHE=1 turns the cache off.
module.enableCompileCache?.()
// Node keeps it when a process ends by itself; one that is killed later leaves it, too
setTimeout(() => module.flushCompileCache?.(), 10_000).unref()
resolveByText()

// A checkout runs its TypeScript directly; the published package has no src/ and runs the built files.
const source = new URL("../src/cli/main.ts", import.meta.url)
await import(existsSync(source) ? source.href : new URL("../dist/cli/main.js", import.meta.url).href)
