// Judges how a new build of a projection is deployed beside the live one: who runs the live one meanwhile, and what to do next. Pure: no I/O.
import { candidateOf, type StoredBuild } from "../postgres/store/builds.ts"
import type { ProcessRow } from "../postgres/store/processes.ts"
import { dataFlag } from "./build-text.ts"
import { isAlive } from "./findings.ts"
import { counted } from "../text/counted.ts"

/** What is known of a projection with a follower. */
export interface DeploymentFacts {
  /** All builds of the projection, by number. */
  readonly builds: ReadonlyArray<StoredBuild>
  readonly processes: ReadonlyArray<ProcessRow>
  /** The numbers of the builds that this process runs; undefined for a command that runs none. */
  readonly here: ReadonlyArray<number> | undefined
  /** How many records the candidate has to process until it is where the live build is; undefined if that is not known. */
  readonly toGo?: number | undefined
  /** The state directory if the database is the embedded one. */
  readonly embeddedDir: string | undefined
}
/** What a deployment looks like, and what to do next. */
export interface Deployment {
  readonly projection: string
  readonly message: string
  readonly try: string
}

const buildText = ({ declared, number }: StoredBuild) =>
  declared === number ? `version ${declared}` : `build ${number} of version ${declared}`

/**
 * How a projection's newer build comes into use: the live one runs in the same process or in another one, or nobody runs it. Also where the code is
 * older than what is live. Undefined if the projection has no follower that matters.
 */
export const deploymentOf = ({
  builds,
  embeddedDir,
  here,
  processes,
  toGo
}: DeploymentFacts): Deployment | undefined => {
  const live = builds.find((build) => build.live)
  if (live === undefined) return undefined
  const { name } = live
  const flag = dataFlag(embeddedDir)
  const command = (verb: string) => `millrace ${verb}${flag} ${name}`
  const candidate = candidateOf(builds)
  const runsLive = (projections: ReadonlyArray<string>) => projections.includes(`${name}_v${live.number}`)
  const one = processes.find((other) => isAlive(other) && runsLive(other.projections))
  if (candidate === undefined) {
    const isOld = here !== undefined && here.length > 0 && !here.includes(live.number)
    if (!isOld) return undefined
    const own = builds.find(({ number }) => number === here[0])
    return {
      projection: name,
      message: `readers see ${buildText(live)}, which this configuration does not have; ${own === undefined ? "what runs here" : buildText(own)} follows it and publishes nothing`,
      try: `deploy the code of version ${live.declared} here, or take its place back: ${command("promote")} --rollback`
    }
  }
  const follows = `${buildText(candidate)} follows ${buildText(live)}, which readers see`
  const ready =
    toGo === undefined ? "" : toGo === 0 ? "; it has caught up" : `; it has ${counted(toGo, "record")} to go`
  const next = `${toGo === 0 ? "" : "when it has caught up, "}${command("diff")}, then ${command("promote")}`
  if (here?.includes(live.number) === true) {
    const then =
      live.declared === candidate.declared ? "" : `, then remove version ${live.declared} from the configuration`
    return { projection: name, message: `${follows} and this process runs, too${ready}`, try: next + then }
  }
  if (one !== undefined) {
    const message = `${follows} and process ${one.pid} on ${one.host} runs${ready}`
    const isSame = runsLive(one.projections) && one.projections.includes(`${name}_v${candidate.number}`)
    const then = isSame
      ? ""
      : `, then stop the processes that run only version ${live.declared}, once you need no rollback`
    return { projection: name, message, try: next + then }
  }
  const message =
    `no process runs ${buildText(live)}, which readers see, so nothing of ${name} is published until the switch. ` +
    `${buildText(candidate).replace(/^./, (first) => first.toUpperCase())} catches up to where it stopped${ready}`
  return { projection: name, message, try: `${toGo === 0 ? "" : "when it has caught up, "}${command("promote")}` }
}
