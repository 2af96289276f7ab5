// Points the exports of package.json at dist/ before npm packs, and back at src/ afterwards. Node does not strip types within node_modules, and
// npm cannot have other exports in the published package. If packing is interrupted, `npm run postpack` restores package.json.
import { readFileSync, writeFileSync } from "node:fs"

const file = new URL("../package.json", import.meta.url)
const text = readFileSync(file, "utf8")

switch (process.argv[2]) {
  case "dist":
    writeFileSync(file, text.replaceAll(/"\.\/src\/([\w/.-]+)\.ts"/g, '"./dist/$1.js"'))
    break
  case "src":
    writeFileSync(file, text.replaceAll(/"\.\/dist\/([\w/.-]+)\.js"/g, '"./src/$1.ts"'))
    break
  default:
    throw new Error("usage: node scripts/exports.mjs dist|src")
}
