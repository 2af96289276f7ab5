// Points package.json's exports at dist/ before npm packs, and back at src/ after: Node strips no types within node_modules,
// and npm, unlike others, has no exports of their own for the published package. `npm run postpack` mends a pack that was cut off.
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
    throw new Error("try: node scripts/exports.mjs dist, or src")
}
