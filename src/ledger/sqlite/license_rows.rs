//! All rows of one licence: to export them for its buyer, or to make them anonymous.

use rusqlite::{Connection, params, types::ValueRef};
use serde_json::{Map, Value, json};

/// Tables with a column `license`, and how many rows of each are given at most.
const TABLES: [(&str, usize); 5] = [
    ("usage", 1_000),
    ("daily", 2_000),
    ("requests", 5_000),
    ("adjustments", 1_000),
    ("actions", 1_000),
];

/// Rows by table, the newest first where there is an order.
pub fn export(connection: &Connection, license: &str) -> rusqlite::Result<Map<String, Value>> {
    let mut tables = Map::new();
    for (table, most) in TABLES {
        let order = match table {
            "requests" | "actions" => "ORDER BY rowid DESC",
            _ => "",
        };
        let query = format!("SELECT * FROM {table} WHERE license = ?1 {order} LIMIT {most}");
        let mut statement = connection.prepare(&query)?;
        let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let mut rows = statement.query([license])?;
        let mut list = Vec::new();
        while let Some(row) = rows.next()? {
            let mut cells = Map::new();
            for (place, name) in names.iter().enumerate().filter(|(_, name)| *name != "license") {
                let cell = match row.get_ref(place)? {
                    ValueRef::Integer(number) => json!(number),
                    ValueRef::Real(number) => json!(number),
                    ValueRef::Text(text) => json!(String::from_utf8_lossy(text)),
                    ValueRef::Null | ValueRef::Blob(_) => Value::Null,
                };
                cells.insert(name.clone(), cell);
            }
            list.push(Value::Object(cells));
        }
        tables.insert(table.into(), Value::Array(list));
    }
    Ok(tables)
}

/// Sums stay; whose they were is gone.
pub fn forget(connection: &mut Connection, license: &str) -> rusqlite::Result<()> {
    let tx = connection.transaction()?;
    for table in ["usage", "rates", "adjustments", "leases", "actions"] {
        tx.execute(&format!("DELETE FROM {table} WHERE license = ?1"), [license])?;
    }
    tx.execute("DELETE FROM conversations WHERE license = unhex(?1)", [license])?;
    tx.execute("UPDATE requests SET license = NULL WHERE license = ?1", [license])?;
    // A name that leads nowhere: the day's sums are kept by licence.
    let name: String =
        tx.query_row("SELECT 'forgotten-' || lower(hex(randomblob(8)))", [], |row| row.get(0))?;
    tx.execute("UPDATE daily SET license = ?1 WHERE license = ?2", params![name, license])?;
    tx.commit()
}
