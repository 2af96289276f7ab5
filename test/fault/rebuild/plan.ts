// The plan of a run: in each cycle a command is killed at a point, or a service is killed while a command is at one. Everything follows from the seed.
import { randomOf } from "../../support/random.ts"
import { shuffled } from "../harness/schedule.ts"
import { type Command, points } from "./points.ts"

/** What happens to a service. */
export type ServiceDeath = "sessions ended" | "backend killed" | "PostgreSQL killed" | "broker killed" | "Pulsar killed"
/** The steps of a rebuild and a promotion during which a service is killed, each with the point at which its command then is. */
const phases = {
  rebuild: "replay goes on",
  diff: "snapshot taken",
  freeze: "frozen",
  drain: "drained",
  flip: "switch sent",
  close: "gate closed, not committed"
} as const
export type Phase = keyof typeof phases

/** A service is killed while a command is in a phase. */
export interface ServiceFault {
  readonly kind: "service"
  readonly death: ServiceDeath
  readonly phase: Phase
  readonly command: Command
  /** The name of the point. */
  readonly point: string
  /** The command is stopped at the point until the service is dead, or says that it is there and goes on, or waits in the database for a lock. */
  readonly how: "stopped" | "running" | "locked"
}
/** The command is killed at a point. */
export interface CommandKill {
  readonly kind: "command"
  readonly command: Command
  readonly point: string
}
/** What disturbs a cycle; undefined: nothing does. */
export type Disturbance = CommandKill | ServiceFault | undefined

const kills = points.map(({ command, name }): CommandKill => ({ kind: "command", command, point: name }))
const commandOf = (phase: Phase): Command => points.find(({ name }) => name === phases[phase])!.command
const ofDatabase: ReadonlyArray<ServiceDeath> = ["sessions ended", "backend killed", "PostgreSQL killed"]
const deaths: ReadonlyArray<ServiceDeath> = [...ofDatabase, "broker killed", "Pulsar killed"]
const faultsOf = (phase: Phase): ReadonlyArray<ServiceFault> => {
  const command = commandOf(phase)
  const at = (death: ServiceDeath, how: ServiceFault["how"], point: string = phases[phase]): ServiceFault => ({
    kind: "service",
    death,
    phase,
    command,
    point,
    how
  })
  return [
    ...deaths.map((death, i) => at(death, i % 2 === 0 ? "stopped" : "running")),
    // the switch waits for a row and is then lost with its session
    ...(phase === "flip" ? ofDatabase.map((death) => at(death, "locked", phases.drain)) : [])
  ]
}
/** Each service dies once in each phase. */
export const serviceFaults: ReadonlyArray<ServiceFault> = (Object.keys(phases) as ReadonlyArray<Phase>).flatMap(
  faultsOf
)

/** The cycles of a run, each disturbed once, in an order from the seed: a kill at every point, and each death of a service; or `count` of these. */
export const planOf = (
  seed: number,
  {
    commands = true,
    count,
    services = false
  }: { readonly count?: number | undefined; readonly commands?: boolean; readonly services?: boolean } = {}
): ReadonlyArray<CommandKill | ServiceFault> => {
  const mixed = shuffled<CommandKill | ServiceFault>(
    [...(commands ? kills : []), ...(services ? serviceFaults : [])],
    randomOf(seed)
  )
  if (count === undefined) return mixed
  // one of each command first
  const first = (["promote", "rebuild", "retire", "diff"] as const)
    .map((command) => mixed.find((one) => one.command === command))
    .filter((one) => one !== undefined)
  return [...first, ...mixed.filter((one) => !first.includes(one))].slice(0, count)
}
