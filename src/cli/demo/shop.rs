//! The shop: two tables of an application that knows nothing of walhook, and what happens in them.

use tokio_postgres::{Client, NoTls};

use super::DemoError;
use crate::tasks::{Role, Tasks};

/// The shop's database.
pub(super) const DATABASE: &str = "shop";

const TABLES: &str = "
create table customers (
    id bigint primary key,
    name text not null,
    email text not null
);
create table orders (
    id bigint primary key,
    customer_id bigint not null references customers (id),
    status text not null,
    total numeric(12,2) not null
);
-- So that an update tells what it changed.
alter table orders replica identity full;
";

const NAMES: [&str; 6] = ["Ada", "Grace", "Edsger", "Barbara", "Alan", "Radia"];
/// Rows that the shop keeps at most: an order beyond is cancelled before the next is placed.
const ORDERS_KEPT: usize = 12;

/// Something that happens in the shop: one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Somebody signs up.
    SignUp,
    /// Somebody moves to another address.
    ChangeEmail,
    /// An order is placed.
    Place,
    /// The oldest open order is paid.
    Pay,
    /// The oldest paid order is shipped.
    Ship,
    /// The newest order is cancelled, its row deleted.
    Cancel,
    /// An order is placed and its transaction rolled back: nobody may ever hear of it.
    Undo,
}

/// The fixed run: eight commits and one rollback.
pub(super) const ONCE: [Step; 9] = [
    Step::SignUp,
    Step::SignUp,
    Step::Place,
    Step::Pay,
    Step::Undo,
    Step::Place,
    Step::ChangeEmail,
    Step::Ship,
    Step::Cancel,
];

/// The deliveries that the fixed run owes, by receiver.
pub(super) const OWED: [(&str, usize); 2] = [("crm", 8), ("warehouse", 1)];

/// The shop, as its own application sees it.
pub(super) struct Shop {
    client: Client,
    customers: u64,
    placed: u64,
    open: Vec<u64>,
    paid: Vec<u64>,
    shipped: Vec<u64>,
}

impl Shop {
    /// Makes the tables.
    pub(super) async fn open(url: &str, tasks: &Tasks) -> Result<Self, DemoError> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tasks.spawn("the shop's connection", Role::Passing, async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the shop's connection ended");
            }
        });
        client.batch_execute(TABLES).await?;
        Ok(Self { client, customers: 0, placed: 0, open: vec![], paid: vec![], shipped: vec![] })
    }

    /// What may happen next, by chance.
    pub(super) fn pick(&self) -> Step {
        if self.customers == 0 {
            return Step::SignUp;
        }
        if self.open.len() + self.paid.len() + self.shipped.len() >= ORDERS_KEPT {
            return Step::Cancel;
        }
        match fastrand::u8(0..20) {
            0..2 => Step::SignUp,
            2..4 => Step::ChangeEmail,
            4 => Step::Undo,
            5..11 if !self.open.is_empty() => Step::Pay,
            11..16 if !self.paid.is_empty() => Step::Ship,
            _ => Step::Place,
        }
    }

    /// Lets a step happen; gives what a person reads of it. A step that is not possible places an order instead.
    pub(super) async fn take(&mut self, step: Step) -> Result<String, DemoError> {
        let (sql, told) = self.plan(step);
        self.client.batch_execute(&sql).await?;
        Ok(told)
    }

    fn plan(&mut self, step: Step) -> (String, String) {
        match step {
            Step::SignUp => self.sign_up(),
            Step::ChangeEmail => {
                let id = fastrand::u64(1..=self.customers.max(1));
                let email = format!("new{}@shop.example", fastrand::u16(100..1000));
                let sql = format!("update customers set email = '{email}' where id = {id}");
                (sql, format!("customer {id}: email becomes {email}"))
            }
            Step::Pay if !self.open.is_empty() => {
                let id = self.open.remove(0);
                self.paid.push(id);
                (status(id, "paid"), format!("order {id}: placed → paid"))
            }
            Step::Ship if !self.paid.is_empty() => {
                let id = self.paid.remove(0);
                self.shipped.push(id);
                (status(id, "shipped"), format!("order {id}: paid → shipped"))
            }
            Step::Cancel => {
                match self.open.pop().or_else(|| self.shipped.pop()).or_else(|| self.paid.pop()) {
                    Some(id) => {
                        (format!("delete from orders where id = {id}"), format!("order {id}: deleted"))
                    }
                    None => self.place(),
                }
            }
            Step::Undo => {
                let (sql, told) = (self.order(self.placed + 1), "an order (rolled back)".to_owned());
                (format!("begin; {sql}; rollback"), told)
            }
            Step::Place | Step::Pay | Step::Ship => self.place(),
        }
    }

    fn sign_up(&mut self) -> (String, String) {
        self.customers += 1;
        let (id, name) = (self.customers, fastrand::choice(NAMES).unwrap_or("Ada"));
        let email = format!("{}{id}@shop.example", name.to_lowercase());
        let sql = format!("insert into customers values ({id}, '{name}', '{email}')");
        (sql, format!("customer {id}: {name} signs up"))
    }

    fn place(&mut self) -> (String, String) {
        self.placed += 1;
        let id = self.placed;
        self.open.push(id);
        (self.order(id), format!("order {id}: placed"))
    }

    fn order(&self, id: u64) -> String {
        let customer = fastrand::u64(1..=self.customers.max(1));
        let (euros, cents) = (fastrand::u16(5..500), fastrand::u8(0..100));
        format!("insert into orders values ({id}, {customer}, 'placed', {euros}.{cents:02})")
    }
}

fn status(id: u64, status: &str) -> String {
    format!("update orders set status = '{status}' where id = {id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whatever_is_picked_the_database_takes_it() {
        let cluster =
            crate::cluster::Cluster::create(&crate::cluster::Options::default()).expect("a cluster");
        cluster.create_database(DATABASE).await.expect("a database");
        let (tasks, _deaths) = Tasks::new();
        let mut shop = Shop::open(&cluster.url(DATABASE), &tasks).await.expect("a shop");
        for _ in 0..300 {
            let step = shop.pick();
            let told = shop.take(step).await.expect("a step that is possible");
            assert_eq!(told.ends_with("(rolled back)"), step == Step::Undo);
        }
        let query = "select count(*) from orders";
        let rows: i64 = shop.client.query_one(query, &[]).await.expect("a count").get(0);
        assert_eq!(usize::try_from(rows), Ok(shop.open.len() + shop.paid.len() + shop.shipped.len()));
    }

    #[test]
    fn the_fixed_run_commits_as_often_as_the_crm_is_owed() {
        let commits = ONCE.iter().filter(|step| **step != Step::Undo).count();
        let shipments = ONCE.iter().filter(|step| **step == Step::Ship).count();
        assert_eq!(OWED, [("crm", commits), ("warehouse", shipments)]);
    }
}
