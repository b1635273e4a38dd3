fn main() {
    println!("hello from a component");
}
