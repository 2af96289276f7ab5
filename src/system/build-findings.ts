// Adds to a status what is known of builds: newer ones beside the live ones with what to do next, and functions that changed. Pure: no I/O.
import { candidateOf, type StoredBuild } from "../postgres/store/builds.ts"
import type { DefinitionWarning } from "../postgres/store/definitions.ts"
import type { ProcessRow } from "../postgres/store/processes.ts"
import { deploymentOf } from "./deployments.ts"
import { buildText, dataFlag } from "./build-text.ts"
import type { Finding, Findings } from "./findings.ts"

/** What is known of the builds of all projections. */
export interface BuildFacts {
  readonly builds: ReadonlyArray<StoredBuild>
  readonly partitions: ReadonlyArray<{
    readonly name: string
    readonly version: number
    readonly topic: string
    readonly partition: number
    readonly position: number
  }>
  readonly processes: ReadonlyArray<ProcessRow>
  /** Functions of builds that differ from those that were accepted. */
  readonly warnings: ReadonlyArray<DefinitionWarning>
  readonly embeddedDir: string | undefined
}

/** How many records a build has to process until it is where another one is. */
const toGo = (partitions: BuildFacts["partitions"], name: string, from: number, to: number): number => {
  const positions = (version: number) =>
    new Map(
      partitions
        .filter((one) => one.name === name && one.version === version)
        .map(({ partition, position, topic }) => [`${topic}/${partition}`, position])
    )
  const own = positions(from)
  return [...positions(to)].reduce((sum, [key, position]) => sum + Math.max(0, position - (own.get(key) ?? 0)), 0)
}

/** What to do about functions that differ from those that a build's rows were made with. */
const changedFinding = (
  { name, version, warnings }: DefinitionWarning,
  declared: number,
  embeddedDir: string | undefined
): Finding => ({
  kind: "changed",
  what: `projection ${buildText({ name, version, declared })}`,
  message: `${warnings.join("; ")} since the version first ran, or since it was accepted; rows keep what the old code made of them`,
  try: `if the results stay the same: millrace migrate${dataFlag(embeddedDir)} --accept ${name}; if not: millrace rebuild${dataFlag(embeddedDir)} ${name}, then diff and promote`
})

/** The findings with those about builds. A live build that is being replaced is not called removed, and is not advised to be started. */
export const withBuilds = ({ notices, problems }: Findings, facts: BuildFacts): Findings => {
  const { builds, embeddedDir, partitions, processes, warnings } = facts
  const added: Array<Finding> = []
  let [kept, wrong] = [notices, problems]
  for (const [name, all] of Map.groupBy(builds, (build) => build.name)) {
    const live = all.find((build) => build.live)
    const candidate = candidateOf(all)
    const behind =
      live === undefined || candidate === undefined ? undefined : toGo(partitions, name, candidate.number, live.number)
    const found = deploymentOf({ builds: all, processes, here: undefined, toGo: behind, embeddedDir })
    if (found === undefined) continue
    const what = `projection ${buildText({ name, version: live!.number, declared: live!.declared })}`
    const isGone = kept.some((one) => one.kind === "removed" && one.what === what)
    added.push({ kind: "building", what: `projection ${name}`, message: found.message, try: found.try })
    kept = kept.filter((one) => !(one.kind === "removed" && one.what === what))
    if (isGone)
      wrong = wrong.map((one) => (one.kind === "not_running" && one.what === what ? { ...one, try: found.try } : one))
  }
  const changed = warnings.flatMap((one) => {
    const build = builds.find(({ live, name, number }) => live && name === one.name && number === one.version)
    return build === undefined ? [] : [changedFinding(one, build.declared, embeddedDir)]
  })
  return { problems: wrong, notices: [...kept, ...added, ...changed] }
}
