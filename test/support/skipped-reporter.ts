// A vitest reporter that says at the end of a run why tests were skipped, how many for each reason, and what to do about it.
import type { Reporter, TestCase, TestModule } from "vitest/node"

/** The reason in the title of a test or of a suite around it, else the note with which a running test skipped itself. */
const reasonOf = (test: TestCase): string | undefined => {
  const [, title] = /\(skipped: (.*?)\)(?: > |$)/.exec(test.fullName) ?? []
  const result = test.result()
  return title ?? (result.state === "skipped" ? result.note : undefined)
}

export default class SkippedReporter implements Reporter {
  onTestRunEnd(modules: ReadonlyArray<TestModule>): void {
    const counts = new Map<string, number>()
    for (const module of modules)
      for (const test of module.children.allTests("skipped")) {
        const reason = reasonOf(test)
        if (reason !== undefined) counts.set(reason, (counts.get(reason) ?? 0) + 1)
      }
    for (const [reason, count] of counts) process.stdout.write(`${count} skipped: ${reason}\n`)
  }
}
