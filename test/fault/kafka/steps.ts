// Carries out a plan's steps on a run: each brings its fault about, waits until it has happened, and leaves regular processes running.
import { setTimeout as sleep } from "node:timers/promises"
import type { Role, Worker } from "../harness/fleet.ts"
import { partitions } from "./fold.ts"
import { claims, endCommits, endLanes, holdCommits, isHandled } from "./observe.ts"
import { Gate } from "../harness/gate.ts"
import type { Plan, Step } from "./plan.ts"
import { CommitProxy, type Loss } from "./commit-proxy.ts"
import type { Run } from "./run.ts"
import { crashPostgres } from "../harness/postgres.ts"
import { crashKafka } from "./services.ts"
import { assertAlive } from "../harness/until.ts"

type Of<K extends Step["kind"]> = Extract<Step, { readonly kind: K }>

/** The hands that carry out a plan. */
export class Steps {
  private readonly run: Run
  private readonly plan: Plan
  private readonly regular: Readonly<Record<Role, number>>
  private done = 0
  private readonly gate = new Gate()

  constructor(run: Run, plan: Plan, regular: Readonly<Record<Role, number>>) {
    this.run = run
    this.plan = plan
    this.regular = regular
  }

  /** Both hands at once, until both are done. Events are fed beside them in proportion. */
  async carryOut(): Promise<void> {
    const { left, right } = this.plan
    await this.restock("projections")
    await this.restock("relay")
    const { sql } = this.run.services
    await this.run.until("claim of every partition", async () => (await claims(sql)) >= partitions)
    const hand = async (steps: ReadonlyArray<Step>, role: Role) => {
      for (const step of steps) {
        this.run.assertSound()
        await this.feed()
        await this.perform(step)
        this.done++
        this.run.say(`${this.done} of ${left.length + right.length}: ${JSON.stringify(step)}`)
        assertAlive(this.run.fleet)
        await this.restock(role)
        await this.look()
      }
    }
    // where one fails the other gives up what it waits for, and both have ended before anything is closed
    const hands = [hand(left, "projections"), hand(right, "relay")].map((one) => one.catch(this.run.fail))
    await Promise.all(hands)
    this.run.assertSound()
  }
  /** The load's share of a step, in one burst. */
  private async feed() {
    const { feeder, options } = this.run
    const all = this.plan.left.length + this.plan.right.length
    const due = Math.floor((options.events * (this.done + 1)) / all) - feeder.fed
    if (due > 0) await feeder.feed(Math.min(due, 20_000))
  }
  private async look() {
    const { differences, services, watch } = this.run
    // another hand may have the server down
    await watch.look(services.sql, differences).catch(() => undefined)
  }
  private async restock(role: Role) {
    await this.gate.passage
    const { fleet } = this.run
    for (let n = fleet.of(role).length; n < this.regular[role]; n++) fleet.start(role)
  }
  private async start(role: Role, point?: string, url?: string): Promise<Worker> {
    await this.gate.passage
    return this.run.fleet.start(role, {
      ...(point === undefined ? {} : { point }),
      ...(url === undefined ? {} : { environment: { MILLRACE_DATABASE_URL: url } })
    })
  }

  private async perform(step: Step): Promise<void> {
    switch (step.kind) {
      case "killAtPoints":
        return this.killAtPoints(step)
      case "killAtRandom":
        return this.killAtRandom(step)
      case "killRelayAtPoint":
        return this.killRelayAtPoint(step)
      case "joinAndLeave":
        return this.joinAndLeave(step)
      case "zombie":
        return this.zombie(step)
      case "overlap":
        return this.overlap()
      case "relayZombie":
        return this.relayZombie(step)
      case "endBackends":
        return this.endBackends(step)
      case "loseReplies":
        return this.loseReplies(step.losses)
      case "relayFight":
        return this.relayFight(step)
      case "crashPostgres":
        await this.gate.closed(this.run, () => crashPostgres(this.run.services, step.immediate))
        return this.run.note("PostgreSQL crashed")
      case "crashKafka":
        await this.gate.closed(this.run, () => crashKafka(this.run.services))
        return this.run.note("broker killed")
    }
  }

  private async killAtPoints({ points }: Of<"killAtPoints">) {
    let more = 0
    const armed = await Promise.all(points.map(({ name, nth }) => this.start("projections", `kill:${name}:${nth}`)))
    for (const [i, worker] of armed.entries()) {
      const { name } = points[i]!
      let newest = worker
      await this.run.until(`arrival at the point '${name}'`, async () => {
        // what a process has is only taken from it where others join
        if (name === "at revocation" && more < 4 && newest.claims > 0) {
          newest = await this.start("projections")
          more++
        }
        return worker.exit !== undefined
      })
      this.killed(worker, `projector killed ${name}`)
    }
    await this.reduce()
  }
  private async killRelayAtPoint({ name, nth }: Of<"killRelayAtPoint">) {
    const armed = await this.start("relay", `kill:${name}:${nth}`)
    await this.leaveTo(armed)
    await this.run.until(`arrival at the point '${name}'`, () => armed.exit !== undefined)
    this.killed(armed, `relay killed ${name}`)
  }
  /** The lane comes to one relay alone. */
  private async leaveTo(...those: ReadonlyArray<Worker>) {
    const others = this.run.fleet.of("relay").filter((worker) => !those.includes(worker))
    await Promise.all(others.map((worker) => worker.end("SIGTERM")))
  }
  /** It ended as it was told to. */
  private killed(worker: Worker, what: string) {
    if (worker.exit !== "SIGKILL") throw new Error(`${worker.role} ended with ${worker.exit}:\n${worker.output}`)
    this.run.note(what)
  }
  private async killAtRandom({ afterMs, role }: Of<"killAtRandom">) {
    const [worker] = this.run.fleet.of(role)
    await sleep(afterMs)
    await worker?.end("SIGKILL")
    this.run.note(`${role === "relay" ? "relay" : "projector"} killed at random`)
  }
  /** Back to the number of regular processes: the oldest leave, in order. */
  private async reduce() {
    const running = this.run.fleet.of("projections").filter(({ stopped }) => !stopped)
    const surplus = running.slice(0, Math.max(0, running.length - this.regular.projections))
    await Promise.all(surplus.map((worker) => worker.end("SIGTERM")))
    if (surplus.length > 0) this.run.note("member left in order", surplus.length)
  }

  private async joinAndLeave({ signal }: Of<"joinAndLeave">) {
    const { services } = this.run
    const worker = await this.start("projections")
    await this.run.until("claim of a process that joined", () => worker.claims > 0)
    this.run.note("rebalance: joined")
    const before = await claims(services.sql)
    await worker.end(signal)
    await this.run.until("claim after a process left", async () => (await claims(services.sql)) > before)
    this.run.note(signal === "SIGTERM" ? "rebalance: left" : "rebalance: lost")
  }

  private async zombie({ nth }: Of<"zombie">) {
    const { feeder, services } = this.run
    const worker = await this.start("projections", `stop:before commit:${nth}`)
    await this.run.until("process that stands before a commit", () => worker.stopped)
    // all that is fed by now is handled by others, and so what it has in hand
    const ends = await feeder.ends()
    await this.run.until("takeover from a process that stands still", () => isHandled(services.sql, ends))
    const before = worker.fenced
    worker.signal("SIGCONT")
    // without a fence its commits are answered all the same
    const answered = () => worker.fenced > before || worker.answered > partitions || worker.exit !== undefined
    await this.run.until("answer to the commit of a process that came back", answered)
    this.run.note(worker.fenced > before ? "zombie fenced" : "zombie not fenced")
    await this.reduce()
  }
  /** Until two claims of a partition overlapped. What the other hand feeds meanwhile may be in the first process's hand instead. */
  private async overlap() {
    for (let tries = 3; tries > 0; tries--) {
      const fenced = await this.run.quietly(() => this.overlapOnce())
      if (fenced) return this.run.note("overlapping claim fenced")
    }
    this.run.note("overlapping claim not fenced")
  }
  /**
   * Two processes at once before a commit of the same partition, the later claimant with more events in hand than the first, which
   * comes back before the other has committed anything: nothing but the claim tells their commits apart. Whether the first was fenced.
   */
  private async overlapOnce(): Promise<boolean> {
    const { feeder, fleet, services } = this.run
    const isAllHandled = async () => isHandled(services.sql, await feeder.ends())
    const alone = async (deed: "stop" | "step") => {
      const worker = await this.start("projections", `${deed}:before commit:1`)
      await Promise.all(fleet.of("projections").map((one) => one !== worker && !one.stopped && one.end("SIGTERM")))
      return worker
    }
    const stands = (worker: Worker) => this.run.until("process that stands before a commit", () => worker.stopped)
    await this.run.until("handling before an overlap", isAllHandled)
    const first = await alone("step")
    await feeder.only(30)
    await stands(first)
    // in the log before the second reads it, and too much for the first to have
    await feeder.only(30)
    const ends = await feeder.ends()
    const second = await alone("stop")
    await stands(second)
    for (const worker of [first, second]) {
      worker.signal("SIGCONT")
      const answered = () => worker.fenced + worker.answered > 0 || worker.exit !== undefined
      await this.run.until("answer to the commit of a process that came back", answered)
    }
    first.signal("SIGCONT")
    await this.run.until("handling after an overlap", () => isHandled(services.sql, ends))
    await this.restock("projections")
    await Promise.all([first.end("SIGTERM"), second.end("SIGTERM")])
    return first.fenced > 0
  }
  private async relayZombie({ name }: Of<"relayZombie">) {
    const { services } = this.run
    const armed = await this.start("relay", `stop:${name}:1`)
    await this.leaveTo(armed)
    await this.run.until("relay that stands still", () => armed.stopped)
    await this.restock("relay")
    // a session that lives is let have its lane; here the server is told that it is gone
    await this.run.until("end of a lane's session", async () => (await endLanes(services.sql)) > 0)
    await this.run.relayed("takeover from a relay that stands still")
    armed.signal("SIGCONT")
    await this.run.feeder.feed(200)
    await this.run.relayed("relaying beside a relay that came back")
    this.run.note("relay zombie")
    await armed.end("SIGTERM")
  }
  private async relayFight({ times }: Of<"relayFight">) {
    const environment = { MILLRACE_GREED: "1" }
    await this.gate.passage
    const pair = [1, 2].map(() => this.run.fleet.start("relay", { environment }))
    await this.leaveTo(...pair)
    const overtaken = () => pair.every((worker) => worker.overtaken >= times)
    await this.run.until("fences between two relays of one lane", overtaken)
    this.run.note("two relays on one lane")
    await Promise.all(pair.map((worker) => worker.end("SIGTERM")))
  }

  private async endBackends({ held }: Of<"endBackends">) {
    const { feeder, services } = this.run
    let ended = 0
    const release = held ? await holdCommits(services.connect) : undefined
    try {
      if (!held) await feeder.feed(400)
      await this.run.until(
        "session in the middle of a commit",
        async () => (ended += await endCommits(services.sql)) > 0
      )
    } finally {
      await release?.()
    }
    this.run.note("backend ended during commit", ended)
  }
  private async loseReplies(losses: ReadonlyArray<Loss>) {
    const proxy = new CommitProxy(this.run.services.url)
    await proxy.open()
    const worker = await this.start("projections", undefined, proxy.url)
    try {
      for (const loss of losses) {
        const before = proxy.losses
        proxy.arm(loss)
        await this.run.until("commit through the proxy", () => proxy.losses > before)
        this.run.note(`commit's reply lost, ${loss}`)
      }
      await worker.end("SIGTERM")
    } finally {
      await proxy.close()
    }
  }
}
