// An application with personal data in two aggregates, one of them with an upcast event, and projections of it: inline, async, and one that fails.
import { Schema } from "effect"
import { Aggregate, Application, Event, Personal, Projection, ReadModel } from "../../src/index.ts"

const of = { customer_id: Schema.String }
const Registered = Event.make("customer.registered", { ...of, mail: Personal(Schema.String) }).upcast(
  { ...of, email: Personal(Schema.String, { redacted: "gone" }), domain: Schema.String },
  ({ customer_id, mail }) => ({ customer_id, email: mail, domain: mail.split("@")[1] ?? "none" })
)
/** Customers: the subject is the id of the stream. */
export const Customer = Aggregate.make({
  name: "customer",
  events: [Registered],
  commands: { register: { ...of, email: Schema.String } },
  state: Schema.Struct({ email: Schema.String }),
  initial: { email: "" },
  evolve: { "customer.registered": (_, { email }) => ({ email }) },
  decide: { register: (_, { customer_id, email }) => Registered.make({ customer_id, email, domain: "x" }) },
  id: "customer_id",
  partitions: 2,
  subject: ({ customer_id }) => customer_id,
  snapshot: { every: 1 }
})
const Noted = Event.make("ticket.noted", {
  ticket_id: Schema.String,
  customer_id: Schema.String,
  note: Personal(Schema.String)
})
/** Tickets of customers: the subject is the customer, which code that is deployed later may not know of all. */
export const Ticket = Aggregate.make({
  name: "ticket",
  events: [Noted],
  commands: { note: { ticket_id: Schema.String, customer_id: Schema.String, note: Schema.String } },
  state: Schema.Struct({ notes: Schema.Int }),
  initial: { notes: 0 },
  evolve: { "ticket.noted": ({ notes }) => ({ notes: notes + 1 }) },
  decide: { note: (_, { customer_id, note, ticket_id }) => Noted.make({ ticket_id, customer_id, note }) },
  id: "ticket_id",
  partitions: 2,
  subject: ({ customer_id, ticket_id }) => {
    if (ticket_id === process.env["BROKEN_TICKET"]) throw new Error("the ticket has no customer")
    return customer_id
  }
})
const table = (name: string) =>
  ReadModel.table(name, {
    columns: { customer_id: Schema.String, email: Schema.String },
    primaryKey: ["customer_id"]
  })
const [inlineEmails, asyncEmails] = [table("inline_emails"), table("async_emails")]
const emails = (name: string, to: typeof inlineEmails) =>
  Projection.make({
    name,
    version: 1,
    source: Customer,
    writes: [to],
    handle: { "customer.registered": ({ customer_id, email }, out) => out.upsert(to, { customer_id, email }) }
  })
const notes = ReadModel.table("notes", {
  columns: { ticket_id: Schema.String, note: Schema.String },
  primaryKey: ["ticket_id"]
})
const failing = Projection.make({
  name: "notes",
  version: 1,
  source: Ticket,
  writes: [notes],
  handle: {
    "ticket.noted": ({ note, ticket_id }, out) => {
      if (note.startsWith("secret")) throw new Error("the note cannot be read")
      out.upsert(notes, { ticket_id, note })
    }
  }
})

export default Application.make({
  name: "customers",
  aggregates: [Customer, Ticket],
  projections: [
    Projection.inline(emails("inline_emails", inlineEmails)),
    Projection.async(emails("async_emails", asyncEmails)),
    Projection.async(failing)
  ]
})
