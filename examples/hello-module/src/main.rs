fn main() {
    println!("hello from a core module");
}
