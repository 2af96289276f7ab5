#!/usr/bin/env node
// The `millrace` command: checks the runtime, then hands over to the CLI. Plain JavaScript, so that an old Node can say what it lacks.
import { existsSync } from "node:fs"
import module from "node:module"

const required = [22, 19]
const [major = 0, minor = 0] = process.versions.node.split(".").map(Number)

if (major < required[0] || (major === required[0] && minor < required[1])) {
  console.error(
    `millrace needs Node ${required.join(".")} or newer (24 is recommended), this is ${process.versions.node}. try: npx millrace in a checkout after npm ci (it brings its own Node), or install Node 24 from https://nodejs.org`
  )
  process.exit(1)
}

// Compiled once, not at every start: half of a start's work. NODE_COMPILE_CACHE says where, NODE_DISABLE_COMPILE_CACHE=1 leaves it.
module.enableCompileCache?.()

// A checkout runs its TypeScript as it is; the published package has no src/ and runs the built files.
const source = new URL("../src/cli/main.ts", import.meta.url)
await import(existsSync(source) ? source.href : new URL("../dist/cli/main.js", import.meta.url).href)
