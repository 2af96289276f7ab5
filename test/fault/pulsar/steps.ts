// Carries out the steps of a plan: each causes its fault, waits until it has happened, and leaves the regular processes running.
import { setTimeout as sleep } from "node:timers/promises"
import type { Worker } from "../harness/fleet.ts"
import { Hands } from "../harness/hands.ts"
import { crashPostgres } from "../harness/postgres.ts"
import type { Plan, Step } from "./plan.ts"
import type { Role } from "./points.ts"
import type { Run, Special } from "./run.ts"
import { tenants, topics } from "./services.ts"

type Of<K extends Step["kind"]> = Extract<Step, { readonly kind: K }>
/** The name of the fault of a message that no topic accepts. */
export const tooLarge = "message too large"
/** Carries out a plan: the left hand works on consumers, the right one on relays, the broker and the database. */
export class Steps extends Hands<Step, Role> {
  protected readonly run: Run
  protected readonly regular = { relay: 1, consumer: 2 }
  private readonly plan: Plan

  constructor(run: Run, plan: Plan) {
    super()
    this.run = run
    this.plan = plan
  }
  /** Carries out the plan, as far as there is time. */
  async carryOut(): Promise<void> {
    const end = performance.now() + (this.run.options.minutes ?? Infinity) * 60_000
    await this.runHands(
      [
        [this.plan.left, "consumer"],
        [this.plan.right, "relay"]
      ],
      () => performance.now() <= end
    )
  }
  protected override launch(role: Role): void {
    this.run.start(role)
  }
  protected override async feed(share: number): Promise<void> {
    const { feeder, options } = this.run
    const due = Math.floor(options.messages * share) - feeder.fed.length
    await feeder.feed(Math.max(due, 20))
  }
  private async start(role: Role, special: Special): Promise<Worker> {
    await this.gate.passage
    return this.run.start(role, special)
  }

  protected override async perform(step: Step): Promise<void> {
    switch (step.kind) {
      case "killAtPoint":
        return this.killAtPoint(step)
      case "killAtRandom":
        return this.killAtRandom(step)
      case "relayZombie":
        return this.relayZombie(step)
      case "relayFight":
        return this.relayFight()
      case "killBroker":
        return this.killBroker()
      case "cut":
        return this.cut(step)
      case "forget":
        return this.forget(step)
      case "unload":
        return this.unload()
      case "poison":
        return this.poison()
      case "crashPostgres":
        await this.gate.closed(this.run, () => crashPostgres(this.run.services, step.immediate))
        return this.run.note("PostgreSQL crashed")
      case "slow":
        return this.among({ slow: 5 }, "slow consumer")
      case "storm":
        return this.among({ failing: 40 }, "redelivery storm")
      case "consumerStop":
        return this.consumerStop()
    }
  }

  private async killAtPoint({ name, nth, role }: Of<"killAtPoint">) {
    const armed = await this.start(role, { point: `kill:${name}:${nth}`, failing: 10 })
    if (role === "relay") await this.leaveTo(role, armed)
    await this.run.feeder.feed(100)
    await this.run.until(`a process reaches the point '${name}'`, () => armed.exit !== undefined)
    this.noteKilled(armed, `${role} killed ${name}`)
  }
  private async killAtRandom({ afterMs, role }: Of<"killAtRandom">) {
    const [worker] = this.run.fleet.of(role)
    await this.run.feeder.feed(100)
    await sleep(afterMs)
    await worker?.end("SIGKILL")
    this.run.note(`${role} killed at random`)
  }
  private async relayZombie({ name, nth }: Of<"relayZombie">) {
    const armed = await this.start("relay", { point: `stop:${name}:${nth}` })
    await this.leaveTo("relay", armed)
    await this.run.feeder.feed(100)
    await this.run.until("a relay to be stopped", () => armed.stopped)
    await this.restock("relay")
    const next = await this.start("relay", {})
    // the server notices only by its silence that it is gone
    await this.run.relayed("takeover from a stopped relay")
    armed.signal("SIGCONT")
    await this.run.feeder.feed(100)
    await this.run.relayed("relaying beside a continued relay")
    this.run.note(`relay zombie ${name}`)
    await Promise.all([armed, next].map((one) => one.end("SIGTERM")))
  }
  private async relayFight() {
    await this.run.feeder.feed(120)
    const pair = [await this.start("relay", { greedy: true }), await this.start("relay", { greedy: true })]
    await this.leaveTo("relay", ...pair)
    await this.run.feeder.feed(120)
    // each of them has producers' names that the other one wants
    await this.run.until("two relays to want the same names", () => pair.every((one) => one.up) && pair.some(wantsName))
    await pair[0]!.end("SIGKILL")
    await this.run.feeder.feed(100)
    await this.run.relayed("relaying by the remaining relay")
    await pair[1]!.end("SIGTERM")
    this.run.note("two relays on one lane")
    this.run.note("relay killed of two")
  }

  private async killBroker() {
    const { pulsar } = this.run.services
    await this.gate.closed(this.run, async () => {
      await this.run.feeder.feed(120)
      await pulsar.kill()
      // on an overloaded machine one start may time out
      await pulsar.start().catch(() => pulsar.start())
    })
    await this.run.relayed("relaying after the broker was killed")
    this.run.note("broker killed")
  }
  private async cut({ times }: Of<"cut">) {
    let count = 0
    for (let i = 0; i < times; i++) {
      await this.run.feeder.feed(100)
      let cut = 0
      // a relay that has just started has no connection yet
      await this.run.until("open connections to cut", () => (cut = this.run.services.cut()) > 0)
      count += cut
      await this.run.relayed("relaying after connections were cut")
    }
    this.run.note("connections cut", count)
  }
  /** Kills a relay after it sent messages beyond its stored position, then has Pulsar forget sequence ids by switching deduplication off and on. */
  private async forget({ nth }: Of<"forget">) {
    await this.killAtPoint({ kind: "killAtPoint", role: "relay", name: "message sent", nth })
    const { admin } = this.run.services
    for (const tenant of tenants)
      for (const on of [false, true]) {
        await admin.call("POST", `namespaces/${tenant}/alerts/deduplication`, on)
        await this.run.until("change of deduplication", async () => {
          const found = await Promise.all(partitionsOf(tenant).map((topic) => this.deduplicates(topic)))
          return found.every((one) => one === undefined || one === on)
        })
      }
    this.run.note("producers forgotten")
  }
  private async deduplicates(topic: string): Promise<boolean | undefined> {
    const stats = (await this.run.services.admin.call("GET", `persistent/${topic}/internalStats`, undefined, [404])) as
      | { readonly cursors?: Readonly<Record<string, unknown>> }
      | undefined
    return stats?.cursors === undefined ? undefined : "pulsar.dedup" in stats.cursors
  }
  private async unload() {
    await this.run.feeder.feed(120)
    const { admin } = this.run.services
    for (const tenant of tenants)
      for (const topic of partitionsOf(tenant)) await admin.call("PUT", `persistent/${topic}/unload`, undefined, [404])
    await this.run.relayed("relaying after topics were unloaded")
    this.run.note("topics unloaded")
  }
  private async poison() {
    await this.run.feeder.feed(50, "anywhere")
    await this.run.relayed("relaying past a message that no topic accepts")
    // a message behind it would show that it is missing, so here none comes
    await this.run.feeder.feed(1, "last")
    await this.run.relayed("relaying a message that no topic accepts as the last one")
    this.run.note(tooLarge)
  }

  /** Runs a special consumer beside the regular ones until everything is handled. */
  private async among(special: Special, what: string) {
    const worker = await this.start("consumer", special)
    await this.run.until(`start of a ${what}`, () => worker.up)
    await this.run.feeder.feed(120)
    await this.run.relayed(`relaying beside a ${what}`)
    await this.run.handledAll(`handling beside a ${what}`)
    await worker.end("SIGTERM")
    this.run.note(what)
  }
  private async consumerStop() {
    const [worker] = this.run.fleet.of("consumer")
    worker?.signal("SIGSTOP")
    await this.run.feeder.feed(120)
    await this.run.relayed("relaying beside a stopped consumer")
    worker?.signal("SIGCONT")
    await this.run.handledAll("handling by a continued consumer")
    this.run.note("consumer stopped")
  }
}

const wantsName = ({ output }: Worker) => /ProducerBusy|already connected/.test(output)

/** The partitions of a tenant's topics, without `persistent://`. */
export const partitionsOf = (tenant: string): ReadonlyArray<string> =>
  Object.entries(topics).flatMap(([name, count]) =>
    count === 1
      ? [`${tenant}/alerts/${name}`]
      : Array.from({ length: count }, (_, i) => `${tenant}/alerts/${name}-partition-${i}`)
  )
